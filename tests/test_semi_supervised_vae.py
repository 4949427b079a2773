"""Oracles: torch.distributions, sums over the label written out, a linear-Gaussian network known in closed form."""

import math

import pytest
import torch
from torch import Tensor, distributions

from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.semi_supervised_vae import SemiSupervisedVAE


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(visible: str = "bernoulli", num_classes: int = 3, **changes: float) -> SemiSupervisedVAE:
    made = SemiSupervisedVAE(5, num_classes, [4], 2, visible=visible, generator=seeded(1), **changes)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.7, generator=seeded(parameter.numel()))
    return made


def inputs(count: int = 4) -> Tensor:
    return (torch.rand(count, 5, generator=seeded(2)) > 0.5).float()


def bound_by_hand(made: SemiSupervisedVAE, x: Tensor, label: int, noise: Tensor) -> Tensor:
    """Of one image: E_q[log p(x | y, z)] by one draw, log p(y), and torch's KL."""
    y = torch.zeros(made.num_classes)
    y[label] = 1
    mean, log_variance = made.encoder(torch.cat([x, y])).chunk(2)
    q = distributions.Normal(mean, (0.5 * log_variance).exp())
    outputs = made.decoder(torch.cat([mean + noise * q.stddev, y]))
    if made.visible == "bernoulli":
        log_p = distributions.Bernoulli(logits=outputs).log_prob(x).sum()
    else:
        centre, spread = outputs.chunk(2)
        log_p = distributions.Normal(centre, (0.5 * spread).exp()).log_prob(x).sum()
    kl = distributions.kl_divergence(q, distributions.Normal(torch.zeros(2), torch.ones(2))).sum()
    bound: Tensor = log_p - kl - math.log(made.num_classes)
    return bound


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_labelled_bound_is_equation_6(visible: str) -> None:
    made, x, labels = model(visible), inputs(), torch.tensor([0, 1, 2, 1])
    noise = torch.randn(4, 2, generator=seeded(3))
    expected = [bound_by_hand(made, x[i], int(labels[i]), noise[i]) for i in range(4)]
    torch.testing.assert_close(made.labelled_bound(x, labels, seeded(3)), torch.stack(expected))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_unlabelled_bound_sums_over_the_label_as_equation_7(visible: str) -> None:
    made, x = model(visible), inputs()
    noise = torch.randn(4, 3, 2, generator=seeded(3))
    expected = []
    for i in range(4):
        q = torch.softmax(made.classifier(x[i]), 0)
        bounds = torch.stack([bound_by_hand(made, x[i], label, noise[i, label]) for label in range(3)])
        expected.append((q * bounds).sum() + distributions.Categorical(q).entropy())
    torch.testing.assert_close(made.unlabelled_bound(x, seeded(3)), torch.stack(expected))


def test_with_the_true_posteriors_the_unlabelled_bound_is_the_evidence() -> None:
    """x ignores z, so q(z | x, y) = N(0, I) is exact and log p(x) is that of a mixture over y."""
    made, x = model(), inputs(1)
    with torch.no_grad():
        made.encoder.top.weight.zero_()
        made.encoder.top.bias.zero_()
        next(iter(made.decoder.parameters()))[:, :2] = 0
        means = torch.sigmoid(made.decoder(torch.cat([torch.zeros(3, 2), torch.eye(3)], 1)))
        joint = distributions.Bernoulli(means).log_prob(x).sum(1) - math.log(3)
        made.classifier.top.weight.zero_()
        made.classifier.top.bias.copy_(joint)
    torch.testing.assert_close(made.unlabelled_bound(x, seeded()), joint.logsumexp(0)[None])


def test_the_loss_is_equation_9_over_the_batch() -> None:
    made, x = model(classification_weight=0.3), inputs(6)
    labels = torch.tensor([2, UNLABELLED, 0, UNLABELLED, UNLABELLED, 1])
    known = labels != UNLABELLED
    generator = seeded(4)
    bounds = torch.cat(
        [made.labelled_bound(x[known], labels[known], generator), made.unlabelled_bound(x[~known], generator)]
    )
    cross_entropy = -distributions.Categorical(logits=made.classifier(x[known])).log_prob(labels[known]).mean()
    losses = made.training_losses(Batch(x, labels), 0, seeded(4))
    torch.testing.assert_close(losses.total, -bounds.sum() / 6 + 0.3 * cross_entropy)
    torch.testing.assert_close(losses.parts["unlabelled_bound"], bounds[3:].mean().detach())


@pytest.mark.parametrize("label", [UNLABELLED, 1])
def test_a_batch_may_lack_labelled_or_unlabelled_images(label: int) -> None:
    made, x = model(), inputs()
    losses = made.training_losses(Batch(x, torch.full((4,), label)), 0, seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    assert ("labelled_bound" in losses.parts) == (label != UNLABELLED)


def test_unlabelled_images_teach_the_classifier_what_few_labels_cannot() -> None:
    """Two clusters of binary inputs, one label each; the first input is noise that the labels happen to agree with."""
    generator = seeded(5)
    labels = torch.arange(200) % 2
    x = (torch.rand(200, 5, generator=generator) < torch.where(labels[:, None] == 1, 0.9, 0.1)).float()
    x[:, 0] = (torch.rand(200, generator=generator) < 0.5).float()
    x[0, 0], x[1, 0] = 0, 1
    shown = torch.where(torch.arange(200) < 2, labels, UNLABELLED)
    made = SemiSupervisedVAE(5, 2, [8], 1, classification_weight=1.0, generator=seeded(6))
    optimizer = torch.optim.Adam(made.parameters(), 0.02)
    for step in range(150):
        optimizer.zero_grad()
        made.training_losses(Batch(x, shown), step, generator).total.backward()
        optimizer.step()
    best = ((x[:, 1:].sum(1) > 2).long() == labels)[x[:, 1:].sum(1) != 2].float().mean()
    decided = x[:, 1:].sum(1) != 2
    accuracy = (made.predict_log_probabilities(x).argmax(1) == labels)[decided].float().mean()
    assert accuracy > best - 0.02


def test_a_model_rebuilt_from_its_config_and_state_predicts_the_same_bits() -> None:
    made = model("gaussian")
    copy = SemiSupervisedVAE.from_config(made.to_config())
    copy.load_state_dict(made.state_dict())
    assert torch.equal(copy.predict_log_probabilities(inputs()), made.predict_log_probabilities(inputs()))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="visible must be one of bernoulli, gaussian, got 'softmax'"):
        model("softmax")
    with pytest.raises(ValueError, match=r"classification_weight must be >= 0, got -1"):
        model(classification_weight=-1)

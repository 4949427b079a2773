"""Oracles: all matchings tried, scikit-learn's PCA, Monte Carlo for the mixture prior's divergence."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import distributions

from pipeline.metrics.clustering import cluster_accuracy, cluster_scores
from pipeline.metrics.probes import Codes, classify, cluster, pca_codes
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.mixture_vae import MixtureVAE, mixture_kl

RNG = np.random.default_rng(0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cluster_accuracy_is_that_of_the_best_of_all_matchings() -> None:
    clusters, labels = RNG.integers(0, 4, 60), RNG.integers(0, 4, 60)
    best = max(np.mean(np.array(names)[clusters] == labels) for names in itertools.permutations(range(4)))
    assert cluster_accuracy(clusters, labels) == pytest.approx(best)


def test_clusters_under_other_names_are_perfect_and_more_clusters_than_classes_are_not() -> None:
    labels = np.repeat(np.arange(3), 10)
    assert cluster_scores((labels + 1) % 3, labels) == pytest.approx({"acc": 1.0, "nmi": 1.0, "ari": 1.0})
    halves = 2 * labels + np.tile([0, 1], 15)
    assert cluster_scores(halves, labels)["acc"] == 0.5
    with pytest.raises(ValueError, match="one label each, got 2 clusters and 3 labels"):
        cluster_accuracy(labels[:2], labels[:3])


def test_pca_codes_are_scikit_learns_up_to_signs() -> None:
    train, test = RNG.normal(size=(30, 6)), RNG.normal(size=(5, 6))
    model = PCA(3).fit(train)
    ours = pca_codes(train, test, 3)
    for codes, expected in zip(ours, (model.transform(train), model.transform(test)), strict=True):
        np.testing.assert_allclose(np.abs(codes), np.abs(expected), atol=1e-9)


def blobs(count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 3
    return 10 * np.eye(3)[labels] + RNG.normal(size=(count, 3)), labels


def test_far_clusters_are_found_and_classified_and_unlabelled_rows_are_left_out() -> None:
    (train, train_labels), (test, test_labels) = blobs(60), blobs(30)
    codes = Codes(train, np.where(np.arange(60) < 30, train_labels, -1), test, test_labels)
    assert set(classify(codes).values()) == {1.0}
    assert cluster(codes, 3, 0) == pytest.approx(
        {f"{kind}_{score}": 1.0 for kind in ("kmeans", "gmm") for score in ("acc", "nmi", "ari")}
    )


def random_mixture() -> MixtureVAE:
    model = MixtureVAE((1, 4, 4), hidden_sizes=[8], latent_dim=2, num_components=3, generator=seeded())
    with torch.no_grad():
        for parameter in (model.prior_logits, model.prior_means, model.prior_log_variances):
            parameter.normal_(generator=seeded(parameter.numel()))
    return model


def test_the_mixture_divergence_matches_monte_carlo() -> None:
    mean, log_variance = torch.randn(4, 2, generator=seeded()), torch.randn(4, 2, generator=seeded(1))
    shares = torch.softmax(torch.randn(4, 3, generator=seeded(2)), 1)
    model = random_mixture()
    log_weights = torch.log_softmax(model.prior_logits, 0)
    means, log_variances = model.prior_means, model.prior_log_variances
    found = mixture_kl(mean, log_variance, shares.log(), log_weights, means, log_variances)
    posterior = distributions.Normal(mean, (0.5 * log_variance).exp())
    z = mean + (0.5 * log_variance).exp() * torch.randn(30_000, 4, 2, generator=seeded(3))
    c = torch.multinomial(shares, 30_000, replacement=True, generator=seeded(4)).t()
    prior = distributions.Normal(means[c], (0.5 * log_variances[c]).exp()).log_prob(z).sum(2) + log_weights[c]
    own = posterior.log_prob(z).sum(2) + torch.gather(shares.log().expand(30_000, 4, 3), 2, c[:, :, None])[:, :, 0]
    torch.testing.assert_close(found, (own - prior).mean(0), rtol=0.03, atol=0.05)


def test_responsibilities_are_those_of_torchs_mixture() -> None:
    model, z = random_mixture(), torch.randn(5, 2, generator=seeded(1))
    joint = distributions.Normal(model.prior_means, (0.5 * model.prior_log_variances).exp())
    log_joint = joint.log_prob(z[:, None]).sum(2) + torch.log_softmax(model.prior_logits, 0)
    torch.testing.assert_close(model.log_responsibilities(z), torch.log_softmax(log_joint, 1))
    assert torch.equal(model.assign(z), log_joint.argmax(1))


def test_one_standard_component_is_the_standard_prior() -> None:
    sizes = {"hidden_sizes": [8], "latent_dim": 2, "generator": None}
    plain, mixture = DenseVAE((1, 4, 4), **sizes), MixtureVAE((1, 4, 4), num_components=1, **sizes)  # type: ignore[arg-type]
    mixture.start_from(plain, torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2))
    mean, log_variance, z = (torch.randn(5, 2, generator=seeded(i)) for i in range(3))
    torch.testing.assert_close(mixture.kl(mean, log_variance, z), plain.kl(mean, log_variance, z))

"""Tiny RBMs with every state of their visible units in a table: what closed forms are held against."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.models.contrastive import contrastive_divergence
from pipeline.models.losses import Batch
from pipeline.models.rbm import RBM
from pipeline.models.rbm_gradients import Parameters, contrast_gradients


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(count: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def tiny(num_visible: int = 4, num_hidden: int = 3, scale: float = 1.0, **options: object) -> RBM:
    model = RBM(num_visible, num_hidden, **options).double()  # type: ignore[arg-type]
    generator = seeded(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale, generator=generator)
    return model


def as_batch(x: Tensor) -> Batch:
    return Batch(x, torch.full((len(x),), -1))


def parameters_of(model: RBM) -> Parameters:
    return Parameters(model.weight, model.hidden_bias, model.visible_bias, model.log_variance)


def learned(model: RBM) -> list[Tensor]:
    """The parameters that have a gradient."""
    return [parameter for parameter in parameters_of(model) if parameter.requires_grad]


def cd_loss(model: RBM, v_data: Tensor, v_model: Tensor) -> Tensor:
    """mean F(v_data) - mean F(v_model) with its closed-form gradient."""
    at = parameters_of(model)
    data, other = (model.phase(v, model.hidden_inputs(v)) for v in (v_data, v_model))
    return contrastive_divergence(data, other, lambda d, m: contrast_gradients(d, m, model.units, at), at)


def finite_difference(parameter: Tensor, loss: Callable[[], Tensor], step: float = 1e-5) -> float:
    """d loss / d of the parameter's first element, central."""
    first = parameter.data.view(-1)
    values = []
    for sign in (1, -1):
        first[0] += sign * step
        values.append(loss().item())
        first[0] -= sign * step
    return (values[0] - values[1]) / (2 * step)


def train(model: RBM, x: Tensor, lr: float, steps: int) -> None:
    """Plain updates on batches of 100, drawn with replacement."""
    generator, optimizer = seeded(2), torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    for step in range(steps):
        optimizer.zero_grad()
        batch = as_batch(x[torch.randint(0, len(x), (100,), generator=generator)])
        model.training_losses(batch, step, generator).total.backward()
        optimizer.step()


def table(model: RBM, reach: float = 14.0) -> tuple[Tensor, Tensor]:
    """All visible states, (N, V), and the log of what each counts in a sum, (N,).

    For Gaussian units (two of them) a grid of spacing 0.1 up to `reach`: the trapezoid rule is exact to about 1e-9 for
    standard deviations above 0.2. Softmax units: two groups of three. Replicated softmax: documents of two words, each
    as often as there are orders of its words.
    """
    if model.visible.startswith("gaussian"):
        axis = torch.arange(-reach, reach + 0.05, 0.1, dtype=torch.float64)
        v = torch.cartesian_prod(axis, axis)
        return v, torch.full((len(v),), 2 * torch.tensor(0.1, dtype=torch.float64).log().item(), dtype=torch.float64)
    if model.visible == "softmax":
        values = torch.eye(3, dtype=torch.float64)
        v = torch.stack([torch.cat([one, two]) for one in values for two in values])
    elif model.visible == "replicated_softmax":
        words = torch.eye(model.num_visible, dtype=torch.float64)
        v = torch.stack([one + two for number, one in enumerate(words) for two in words[number:]])
        sequences = 2 / torch.exp(torch.lgamma(v + 1).sum(1))
        return v, torch.log(sequences)
    else:
        v = states(model.num_visible)
    return v, torch.zeros(len(v), dtype=torch.float64)


def fixed(model: RBM, count: int = 1) -> Tensor | None:
    """What the states of `table` have in common, (count, V), for kinds of units with a model for every example."""
    return table(model)[0][:1].expand(count, -1) if model.units.per_example else None


@torch.no_grad()
def joint_table(model: RBM, v: Tensor, log_weights: Tensor) -> Tensor:
    """-E(v, h) plus the weight of v for every pair of states, (N, 2^H)."""
    h = states(model.num_hidden)
    return torch.stack([-model.energy(v, unit.expand(len(v), -1)) for unit in h], 1) + log_weights[:, None]

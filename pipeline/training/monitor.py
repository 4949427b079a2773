"""What is watched of a layer in training: scores of a fixed sample of images that a person can trust.

The free-energy gap shows overfitting (Hinton 2010, sec. 16); the pseudo-likelihood compares across models (Besag 1975);
a log-likelihood needs log Z, which annealed importance sampling gives on a budget. No draw here touches the fit's.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from pipeline.config.monitor import Monitor
from pipeline.config.pretrain import DenseLayer, Layer
from pipeline.metrics.annealing import Annealing, BaseRates, estimate_log_partition
from pipeline.metrics.likelihood import MIN_ESS, compute_log_likelihood, say_refusal
from pipeline.models.dbn import GreedyLayer
from pipeline.models.pseudo_likelihood import negative_pseudo_likelihood
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from pipeline.seeding import derive_seed, make_generator

Point = dict[str, float]
Curve = list[dict[str, float | None]]

LIKELIHOOD = ("log_likelihood", "log_likelihood_low", "log_likelihood_high", "ess")
"""Columns of the curves that only some points have: nats per image with the 95 % interval of log Z, and its effective
sample size. Where that is below MIN_ESS the other three are missing."""


class LayerMonitor:
    """Measures the top layer of `model`, whose layers below are frozen.

    images, validation: (N, C, H, W) in [0, 1].  monitor: None measures the free energies alone.
    """

    def __init__(
        self,
        model: GreedyLayer,
        images: Tensor,
        validation: Tensor,
        *,
        monitor: Monitor | None,
        steps: int,
        steps_per_epoch: int,
        seed: int,
    ) -> None:
        self._model, self._images, self._validation = model, images, validation
        self._monitor, self._steps, self._steps_per_epoch, self._seed = monitor, steps, steps_per_epoch, seed

    @torch.no_grad()
    def measure(self, step: int) -> Point:
        """All that is due after update `step`; free energies and likelihoods in nats per image."""
        top, (train, held_out) = self._model.top, self._inputs
        energies = [float(top.free_energy(top.standardise(x)).mean()) for x in (train, held_out)]
        point = {"train": energies[0], "validation": energies[1], "gap": energies[1] - energies[0]}
        if self._monitor is None or not isinstance(top, RBM):  # a convolutional layer's units cost it too much time
            return point
        generator = make_generator(self._seed, "units", device=held_out.device)
        point["pseudo_likelihood"] = -float(negative_pseudo_likelihood(top, held_out, generator).mean())
        if not say_why_unlikely(self._model.dbn.configs[-1], self._monitor) and self._is_due(step):
            point |= self._look()
        return point

    @cached_property
    def _inputs(self) -> tuple[Tensor, Tensor]:
        """What the frozen layers make of both samples: the same at every point."""
        device = next(self._model.parameters()).device
        with torch.no_grad():
            train, held_out = (
                self._model.dbn.mean_field(images.to(device), self._model.depth)
                for images in (self._images, self._validation)
            )
        return train, held_out

    def _is_due(self, step: int) -> bool:
        """Whether a look falls into the epoch that ends with `step`."""
        assert self._monitor is not None
        before = (step - 1) // self._steps_per_epoch * self._steps_per_epoch
        return step * self._monitor.ais_looks // self._steps > before * self._monitor.ais_looks // self._steps

    def _look(self) -> Point:
        """Mean log p(v) of a draw of the validation inputs, unless the estimate of log Z is to be refused."""
        assert self._monitor is not None
        top, (train, held_out) = self._model.top, self._inputs
        assert isinstance(top, RBM)
        annealing = Annealing(num_chains=self._monitor.ais_chains, num_temperatures=self._monitor.ais_temperatures)
        seed = derive_seed(self._seed, "annealing")
        partition = estimate_log_partition(top, BaseRates.of(top, train), annealing, seed=seed)
        if partition.ess < MIN_ESS:
            return {"ess": partition.ess}
        v = sample_bernoulli(held_out.flatten(1), make_generator(self._seed, "binary", device=held_out.device))
        score = compute_log_likelihood(top, v, partition)
        return dict(zip(LIKELIHOOD, (score.value, score.low, score.high, partition.ess), strict=True))


def say_why_unlikely(layer: Layer, monitor: Monitor) -> str:
    """Why no log-likelihood of the layer is ever estimated; empty where it is."""
    if monitor.ais_looks == 0:
        return "monitor.ais_looks is 0"
    if not (isinstance(layer, DenseLayer) and layer.visible == layer.hidden == "bernoulli"):
        return "log Z is annealed for dense layers of bernoulli units alone"
    return ""


def say_why_refused(layer: Layer, monitor: Monitor, last: Mapping[str, float | None]) -> str:
    """Why the last point of the curves has no log-likelihood; empty where it has one."""
    reason, ess = say_why_unlikely(layer, monitor), last["ess"]
    if reason or ess is None or last["log_likelihood"] is not None:
        return reason
    return say_refusal(ess, monitor.ais_chains, monitor.ais_temperatures)

"""Up-down (contrastive wake-sleep) fine-tuning of a deep belief network (Hinton, Osindero, Teh 2006, appendix B).

Below the top, recognition weights (up) and generative weights (down) part from the greedy ones that both start as. The
wake phase draws hidden states upwards and fits the generative weights to them; the top RBM makes k rounds of Gibbs
sampling from there; the sleep phase draws downwards from its end and fits the recognition weights. tests/test_updown.py
holds the gradients against autograd, and the bound against enumeration before and after.
"""

# B batch, V units of a layer, H units of the layer above it

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.contrastive import contrastive_divergence, with_gradients
from pipeline.models.dbn import DBN
from pipeline.models.dbn_sampling import Chains, sample_rbm
from pipeline.models.losses import Batch, Losses
from pipeline.models.precision import widen
from pipeline.models.rbm import RBM
from pipeline.models.rbm_gradients import contrast_gradients
from pipeline.models.sampling import sample_bernoulli


class Directed(nn.Module):
    """Two layers of Bernoulli units with weights of their own in each direction, (V, H) both."""

    def __init__(self, num_visible: int, num_hidden: int) -> None:
        super().__init__()
        self.recognition = nn.Parameter(torch.zeros(num_visible, num_hidden))
        self.recognition_bias = nn.Parameter(torch.zeros(num_hidden))
        self.generative = nn.Parameter(torch.zeros(num_visible, num_hidden))
        self.generative_bias = nn.Parameter(torch.zeros(num_visible))

    def up(self, v: Tensor) -> Tensor:
        """The logits of Q(h = 1 | v): (B, V) -> (B, H)."""
        return widen(torch.addmm(self.recognition_bias, v, self.recognition))

    def down(self, h: Tensor) -> Tensor:
        """The logits of P(v = 1 | h): (B, H) -> (B, V)."""
        return widen(torch.addmm(self.generative_bias, h, self.generative.t()))


class UntiedDBN(nn.Module):
    """Directed layers below a top RBM, sizes[0] the visible units and sizes[-1] the top's hidden ones.

    gibbs_steps: k of the top between wake and sleep; 3 to 10 in the paper, rising.
    """

    def __init__(self, sizes: Sequence[int], *, gibbs_steps: int = 1) -> None:
        super().__init__()
        self.directed = nn.ModuleList(Directed(*pair) for pair in pairwise(sizes[:-1]))
        self.top = RBM(sizes[-2], sizes[-1], gibbs_steps=gibbs_steps)

    @classmethod
    @torch.no_grad()
    def from_dbn(cls, dbn: DBN, *, gibbs_steps: int = 1) -> Self:
        """The same distributions up and down as those of the greedy stack; weights are copied.

        Raises ValueError when a layer is not a dense one of Bernoulli units.
        """
        rbms = [rbm for rbm in dbn.rbms() if isinstance(rbm, RBM) and rbm.visible == rbm.hidden == "bernoulli"]
        if not rbms or len(rbms) < len(dbn.layers):
            kinds = ", ".join(f"{config.kind} {config.visible}" for config in dbn.configs) or "none"
            raise ValueError(f"needs dense layers of bernoulli units, got {kinds}: build such a DBN")
        model = cls([*(rbm.num_visible for rbm in rbms), rbms[-1].num_hidden], gibbs_steps=gibbs_steps)
        model.to(rbms[0].weight)
        for layer, rbm in zip(model.layers(), rbms, strict=False):
            layer.recognition.copy_(rbm.weight)
            layer.generative.copy_(rbm.weight)
            layer.recognition_bias.copy_(rbm.hidden_bias)
            layer.generative_bias.copy_(rbm.visible_bias)
        for mine, greedy in zip(model.top.parameters_now(), rbms[-1].parameters_now(), strict=True):
            mine.copy_(greedy)
        return model

    def layers(self) -> list[Directed]:
        """Those below the top, bottom first."""
        return [layer for layer in self.directed if isinstance(layer, Directed)]

    def encode(self, x: Tensor) -> Tensor:
        """Hidden probabilities of the top, by mean field along the recognition weights: (B, V) -> (B, H)."""
        return self.top.encode(self.reach_top(x))

    def reach_top(self, x: Tensor) -> Tensor:
        """Mean-field probabilities of the top RBM's visible units: (B, V) -> (B, V of the top)."""
        for layer in self.layers():
            x = torch.sigmoid(layer.up(x))
        return x

    @torch.no_grad()
    def sample(self, chains: Chains, generator: torch.Generator) -> Tensor:
        """A movie of visible states, (num_frames, num_chains, V): Gibbs at the top, ancestral draws below."""
        return torch.stack([self._dream(state, generator)[0] for state in sample_rbm(self.top, chains, generator)])

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Minus the mean log P of the wake states and log Q of the sleep states, plus the top's contrast; in nats.

        images: (B, ...) zeros and ones that flatten to (B, V).
        """
        top = self.top
        with torch.no_grad():
            wake = self._wake(batch.images.flatten(1), generator)
            end = top.gibbs(wake[-1], top.gibbs_steps, generator)
            data, model = (top.phase(v, top.hidden_inputs(v)) for v in (wake[-1], end))
            sleep = self._dream(end, generator)
            downwards = [layer.down(h) for layer, h in zip(self.layers(), wake[1:], strict=True)]
            upwards = [layer.up(v) for layer, v in zip(self.layers(), sleep, strict=False)]
            parts = {
                "wake": _surprise(downwards, wake[:-1], data.visible),
                "sleep": _surprise(upwards, sleep[1:], data.visible),
                "free_energy_data": data.free_energy.mean(),
                "free_energy_model": model.free_energy.mean(),
            }
        now = top.parameters_now()
        total = contrastive_divergence(data, model, lambda d, m: contrast_gradients(d, m, top.units, now), now)
        parameters = [parameter for layer in self.layers() for parameter in layer.parameters()]
        directed = with_gradients(
            parts["wake"] + parts["sleep"], lambda: _directed_gradients(wake, downwards, sleep, upwards), parameters
        )
        return Losses(total + directed, parts)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """The same parts on held-out images."""
        return self.training_losses(batch, step, generator)

    def _wake(self, v: Tensor, generator: torch.Generator) -> list[Tensor]:
        """States of every layer up to the top's visible units, each drawn from Q given the one below."""
        states = [v]
        for layer in self.layers():
            states.append(sample_bernoulli(torch.sigmoid(layer.up(states[-1])), generator))
        return states

    def _dream(self, v_top: Tensor, generator: torch.Generator) -> list[Tensor]:
        """States from the bottom up to the given ones, each drawn from P given the one above."""
        states = [v_top]
        for layer in reversed(self.layers()):
            states.insert(0, sample_bernoulli(torch.sigmoid(layer.down(states[0])), generator))
        return states


def _surprise(logits: Sequence[Tensor], states: Sequence[Tensor], like: Tensor) -> Tensor:
    """Minus the log probability of the states, summed over layers, the mean over the batch: a scalar in nats."""
    nats = [F.binary_cross_entropy_with_logits(*pair, reduction="sum") for pair in zip(logits, states, strict=True)]
    return sum(nats, like.new_zeros(())) / len(like)


def _directed_gradients(
    wake: Sequence[Tensor], downwards: Sequence[Tensor], sleep: Sequence[Tensor], upwards: Sequence[Tensor]
) -> list[Tensor]:
    """d/d(recognition, its bias, generative, its bias) of both surprises, for every layer from the bottom up."""
    gradients = []
    for layer, (down_BV, up_BH) in enumerate(zip(downwards, upwards, strict=True)):
        missed_BH = (torch.sigmoid(up_BH) - sleep[layer + 1]) / len(up_BH)
        missed_BV = (torch.sigmoid(down_BV) - wake[layer]) / len(down_BV)
        gradients += [sleep[layer].t() @ missed_BH, missed_BH.sum(0)]
        gradients += [missed_BV.t() @ wake[layer + 1], missed_BV.sum(0)]
    return gradients

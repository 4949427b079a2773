"""Visible units with several values: softmax units for ratings (Salakhutdinov, Mnih, Hinton 2007), replicated softmax
for the words of documents (Salakhutdinov & Hinton 2009).

Every example has a model of its own, of what was rated or of its number of words, with weights that all share. What is
fixed for an example is read off its visible states: `like`, (B, V).
"""

# B batch, V visible units, N hidden states that are summed over, K values, G groups of K units (V = G * K)

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.sampling import sample_categories, sample_counts
from pipeline.models.units import Linear


@dataclass(frozen=True)
class Softmax(Linear):
    """Groups of K units of which one is on; none is on where the rating is missing, and stays so.

    A missing rating adds nothing to energies, hidden inputs and gradients: the negative phase leaves it out too.
    """

    num_values: int
    per_example = True

    def mean(self, inputs: Tensor, like: Tensor | None) -> Tensor:
        """E[v | h]; without `like` of all groups, which predicts what was not rated."""
        probabilities = torch.softmax(self._groups(inputs), -1)
        if like is not None:
            probabilities = probabilities * self.rated(like)[..., None]
        return probabilities.flatten(-2)

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_categories(self._groups(mean), generator).flatten(-2)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        by_group_NG = torch.logsumexp(self._groups(field + b), -1)
        return by_group_NG.sum(1) if like is None else self.rated(like).to(b.dtype) @ by_group_NG.t()

    def initial_bias(self, x: Tensor) -> Tensor:
        """Log shares of the values among the ratings of a group, one more of each than the data have."""
        counts = self._groups(x.sum(0)) + 1
        return torch.log(counts / counts.sum(-1, keepdim=True)).flatten()

    def rated(self, v: Tensor) -> Tensor:
        """1 where a group has a value, 0 where it is missing: (B, V) -> (B, G)."""
        return (self._groups(v).sum(-1) > 0).to(v.dtype)

    def _groups(self, v: Tensor) -> Tensor:
        return v.reshape(*v.shape[:-1], -1, self.num_values)


@dataclass(frozen=True)
class ReplicatedSoftmax(Linear):
    """v_k counts word k in a document of D words; the hidden biases count D times, E = -b.v - D c.h - v W h.

    Energies are those of a document as a sequence of words: log Z sums over all sequences of D words.
    """

    per_example = True

    def scale(self, v: Tensor, x: Tensor) -> Tensor:
        return x * v.sum(-1, keepdim=True)

    def mean(self, inputs: Tensor, like: Tensor | None) -> Tensor:
        """Expected counts; without `like` of a single word."""
        probabilities = torch.softmax(inputs, -1)
        return probabilities if like is None else self.scale(like, probabilities)

    def sample(self, mean: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return sample_counts(mean, generator)

    def log_sum(self, field: Tensor, b: Tensor, z: Tensor, like: Tensor | None) -> Tensor:  # noqa: ARG002
        one_word_N = torch.logsumexp(field + b, 1)
        return one_word_N if like is None else self.scale(like, one_word_N)

    def offset(self, v: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        """The mean share of each word, as the weights see counts less D times the offset."""
        return (v / v.sum(-1, keepdim=True).clamp(min=1)).mean(0)

    def initial_bias(self, x: Tensor) -> Tensor:
        """Log shares of the words, one more of each than the data have."""
        counts = x.sum(0) + 1
        return torch.log(counts / counts.sum())

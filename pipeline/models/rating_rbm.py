"""Conditional RBM of ratings: Salakhutdinov, Mnih, Hinton 2007, learned by pseudo-likelihood (Besag 1975).

A rating that is asked for is not among those known to be there: p(v_q | v_-q, r_-q), with r what was rated. For
MovieLens latest-small: `python -m benchmarks.applications --rows recommend`. tests/test_rating_rbm.py holds it against
enumeration.
"""

# B examples, G groups, K values, V = G K visible units, H hidden units, R ratings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.losses import Batch, Losses
from pipeline.models.rbm import RBM

OBJECTIVES = ("pseudo_likelihood", "cd")
PRIOR_RATINGS = 10.0
"""Ratings of the overall shares that each group's own are mixed with, where its visible biases start."""


class RatingRBM(RBM):
    """One group of K softmax units for every user (item), an example for every item (user).

    weight is that of ratings that are known, the paper's W + D: where all that was rated is known, D says nothing of
    its own. A rating that is asked for gets weight - rated_weight, W. An ordinary RBM of ratings has D = 0, and so does
    one trained by CD, where nothing is asked for.
    """

    def __init__(
        self, num_groups: int, num_values: int, num_hidden: int, *, objective: str = "pseudo_likelihood"
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
        super().__init__(num_groups * num_values, num_hidden, visible="softmax", num_values=num_values)
        self.num_groups, self.num_values, self.objective = num_groups, num_values, objective
        self.rated_weight = nn.Parameter(torch.zeros(num_groups, num_hidden))

    @torch.no_grad()
    def start(self, counts: Tensor, generator: torch.Generator) -> None:
        """Small random weights; visible biases from how often each group has each value, (G, K)."""
        shares = (counts.sum(0) + 1) / (counts.sum() + self.num_values)
        mixed = counts + PRIOR_RATINGS * shares
        self.visible_bias.copy_(torch.log(mixed / mixed.sum(1, keepdim=True)).flatten())
        self.weight.normal_(0, 0.02, generator=generator)
        self.hidden_bias.zero_()
        self.rated_weight.zero_()

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """Minus the log probability of each rating given the example's others, a mean over ratings in nats; or CD's."""
        if self.objective == "cd":
            return super().training_losses(batch, step, generator)
        return self._pseudo_losses(batch.images)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        if self.objective == "cd":
            return super().validation_losses(batch, step, generator)
        return self._pseudo_losses(batch.images)

    def left_out_logits(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, K) of each rating of v (B, V) given the example's others, and what it is, (R,)."""
        rows_R, units_R = v.nonzero(as_tuple=True)
        groups_R = units_R // self.num_values
        others_RH = F.embedding(rows_R, self.hidden_inputs(v)) - F.embedding(units_R, self.weight)
        return self._logits(others_RH, groups_R), units_R % self.num_values

    def logits(self, v: Tensor, rows: Tensor, groups: Tensor) -> Tensor:
        """log p(value | v) up to a constant of ratings that v has not: example and group of each, (R,) -> (R, K)."""
        return self._logits(F.embedding(rows, self.hidden_inputs(v)), groups)

    def _logits(self, inputs_RH: Tensor, groups_R: Tensor) -> Tensor:
        K, H = self.num_values, self.num_hidden
        W_GKH = self.weight.view(-1, K, H) - self.rated_weight[:, None]
        asked_RKH = F.embedding(groups_R, W_GKH.reshape(-1, K * H)).view(-1, K, H)
        bias_RK = F.embedding(groups_R, self.visible_bias.view(-1, K))
        return bias_RK + F.softplus(inputs_RH[:, None] + asked_RKH).sum(-1)

    def _pseudo_losses(self, v: Tensor) -> Losses:
        logits_RK, value_R = self.left_out_logits(v)
        total = F.cross_entropy(logits_RK, value_R, reduction="sum") / max(len(value_R), 1)
        right = (logits_RK.argmax(1) == value_R).sum() / max(len(value_R), 1)
        return Losses(total, {"nats_per_rating": total.detach(), "accuracy": right})

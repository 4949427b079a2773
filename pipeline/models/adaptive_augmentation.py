"""How much to augment: as much as the discriminator's overfitting asks for (Karras et al. 2020, section 3)."""

import torch
from torch import Tensor, nn

STEER_EVERY = 4
"""Discriminator updates between changes of the probability, as in the paper."""
MAX_PROBABILITY = 0.8
"""Above it the generator may learn to make augmented images (section 2.2 of the paper)."""


class AdaptiveAugmentation(nn.Module):
    """The probability p of diffaugment, which follows r_t = E[sign(D(real))]: up where r_t > target, else down.

    probability: () float64 in [0, 0.8].  signs: (1,), the mean sign over the updates since p last moved. Both are
    state: saved, restored, and equal on workers once `average_means` has met.
    images: real ones over which p can rise by 1; batch_size: of all workers together.
    """

    mean_buffers = ("signs",)
    probability: Tensor
    signs: Tensor

    def __init__(self, *, target: float, images: int, batch_size: int) -> None:
        super().__init__()
        self.target, self.stride = target, STEER_EVERY * batch_size / images
        self.register_buffer("probability", torch.zeros((), dtype=torch.float64))
        self.register_buffer("signs", torch.zeros(1, dtype=torch.float64))

    @torch.no_grad()
    def steer(self, step: int) -> None:
        """Before the discriminator's update `step`: every fourth moves p by sign(r_t - target) times the stride."""
        if step % STEER_EVERY == 0 and step > 0:
            direction = torch.sign(self.signs[0] - self.target)
            self.probability.add_(direction * self.stride).clamp_(0, MAX_PROBABILITY)
            self.signs.zero_()

    @torch.no_grad()
    def watch(self, real_logit: Tensor) -> None:
        """real_logit: (B,), of this worker's augmented real images."""
        self.signs.add_(real_logit.sign().double().mean() / STEER_EVERY)

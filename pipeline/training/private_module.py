"""The Lightning module of DP-SGD (Abadi et al. 2016): the gradient of every example is clipped, and noise added.

Gradients by example come from torch.func, so that any model with `training_losses` can be trained so, whatever it is
made of, and noise from our own seeds, so that a killed fit goes on to the same bits.
"""

# B examples of a batch

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pipeline.models.losses import Batch, LossModel
from pipeline.row_noise import ExampleGenerator, part_generator
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.module import SingleLossModule
from pipeline.training.plan import FitPlan, PrivateSteps
from pipeline.training.poisson import PoissonStream
from pipeline.training.stream import Stream

EXAMPLES_AT_ONCE = 128
"""Their gradients lie in memory together: 128 of a million weights take half a gigabyte."""

Gradients = dict[str, Tensor]


class PrivateLossModule(SingleLossModule):
    """As SingleLossModule, where no number of the training images is written down: losses would leak what they say."""

    def __init__(self, model: nn.Module, stream: Stream, plan: FitPlan) -> None:
        """Raises ValueError for what the guarantee doesn't cover."""
        super().__init__(model, stream, plan)
        if not isinstance(stream, PoissonStream):
            raise ValueError("a private fit needs a PoissonStream: the accountants assume that examples come by chance")
        if self.shard.size > 1 or plan.precision != "32":
            raise ValueError(
                f"a private fit needs one worker and 32 bits, got {self.shard.size} and {plan.precision}: set "
                "run.workers to 1 and run.precision to 32, or dp.models to []"
            )

    def update(self, step: int) -> None:
        assert self.plan.private is not None
        batch = self.stream.batch(step).to(self.device)
        found = private_gradients(
            self.model, batch, step, self.plan.private, self.plan.seed, expected=self.stream.batch_size
        )
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.grad = found[name]
        self.trainer.optimizers[0].step()
        cast("Any", self.trainer.lr_scheduler_configs[0].scheduler).step()


def private_gradients(
    model: nn.Module, batch: Batch, step: int, private: PrivateSteps, seed: int, *, expected: int
) -> Gradients:
    """(sum of the examples' clipped gradients + noise) / expected number of examples, by name of the parameter.

    The number of examples that came is as private as they are, so it divides nothing.
    Raises ValueError where a gradient is not finite.
    """
    total = sum_clipped(model, batch, step, private.max_grad_norm, seed)
    deviation = private.noise_multiplier * private.max_grad_norm
    generator = make_generator(derive_seed(private.secret, "noise", step))
    for name, value in total.items():
        noise = torch.empty(value.shape).normal_(generator=generator)  # on CPU: the same on every device
        value.add_(noise.to(value.device), alpha=deviation).div_(expected)
        if not torch.isfinite(value).all():
            raise ValueError(
                f"training diverged at step {step}: the gradient of {name} is not finite; lower the learning rate (lr) "
                "of this stage in params.yaml"
            )
    return total


def sum_clipped(model: nn.Module, batch: Batch, step: int, max_norm: float, seed: int) -> Gradients:
    """sum over examples of g min(1, max_norm / |g|), g the gradient of an example's own loss.

    The model's draws are those that SingleLossModule makes for the whole batch.
    """
    total = {name: torch.zeros_like(value) for name, value in trainable(model).items()}
    count = len(batch.labels)
    for first in range(0, count, EXAMPLES_AT_ONCE):
        rows = slice(first, min(first + EXAMPLES_AT_ONCE, count))
        part = Batch(batch.images[rows], batch.labels[rows])
        noise = part_generator(seed, "noise", step, first=first, total=count, device=batch.images.device)
        by_example = example_gradients(model, part, step, noise)
        norms_B = torch.stack([g.flatten(1).square().sum(dim=1) for g in by_example.values()]).sum(dim=0).sqrt()
        shrink_B = (max_norm / norms_B.clamp(min=torch.finfo(norms_B.dtype).tiny)).clamp(max=1)
        for name, gradients in by_example.items():
            total[name] += (shrink_B @ gradients.flatten(1)).view_as(total[name])
    return total


def example_gradients(model: nn.Module, batch: Batch, step: int, noise: torch.Generator) -> Gradients:
    """(B, *shape) by name: the gradient of each example's loss, the loss of a batch of that example alone."""
    constants = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    total = len(batch.labels)

    def loss(parameters: Gradients, image: Tensor, label: Tensor, index: Tensor) -> Tensor:
        alone = Batch(image[None], label[None])
        inputs = (alone, step, ExampleGenerator(noise, index[None], total))
        value: Tensor = functional_call(_Loss(model), _inside(constants | parameters), inputs)
        return value

    places = torch.arange(total, device=batch.labels.device)
    by_example = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="same")
    found: Gradients = by_example(trainable(model), batch.images, batch.labels, places)
    return found


def trainable(model: nn.Module) -> Gradients:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


class _Loss(nn.Module):
    """`training_losses` as a forward pass, which functional_call wants."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, step: int, generator: torch.Generator) -> Tensor:
        return cast("LossModel", self.model).training_losses(batch, step, generator).total


def _inside(values: Gradients) -> Gradients:
    return {f"model.{name}": value for name, value in values.items()}

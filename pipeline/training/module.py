"""The two Lightning modules: one for models with a single loss, one for a generator against a discriminator.

Both update by hand, so that one call of Lightning's may hold several updates: its hooks around a call cost 0.6 ms, as
much as a tenth of a dense RBM's update.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pipeline.models.losses import AdversarialModel, Batch, Losses, LossModel
from pipeline.row_noise import shard_generator
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import Epoch, FitPlan, make_optimizer, schedule_factor
from pipeline.training.settings import adopt_settings
from pipeline.training.stream import Stream
from pipeline.training.workers import average_means, current_shard, gather_rows, sum_over_workers

WATCH_EVERY = 8
"""Models with a `watch_every` compute what is only shown at every 8th update (of shorter or odd epochs: at the first of
each, and at even distances), and an epoch's means are over those. It changes no draw and no weight."""


class FitModule(pl.LightningModule):
    """What both modules share: batches and randomness by step, epoch means, the history that a checkpoint carries."""

    def __init__(self, model: nn.Module, stream: Stream, plan: FitPlan) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.stream, self.plan = model, stream, plan
        self.shard = current_shard()
        self.history: list[Epoch] = []
        self.measure: Callable[[int, Sequence[Epoch]], Epoch] | None = None
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        watched: list[Any] = [part for part in model.modules() if hasattr(part, "watch_every")]
        for part in watched:
            part.watch_every = math.gcd(WATCH_EVERY, plan.steps_per_epoch)

    @property
    def steps_done(self) -> int:
        """Updates in finished epochs."""
        return int(self.history[-1]["step"]) if self.history else 0

    def begin_step(self, step: int, number: int | None = None) -> tuple[Batch, torch.Generator]:
        """This worker's part of the batch of `step`, or of batch `number`, and what its noise is drawn from.

        nn.Dropout draws from the global state, so that is seeded too; unlike the generator's rows, its draws change
        with the number of workers.
        """
        _seed_global_state(derive_seed(self.plan.seed, "dropout", step, self.shard.rank), self.device)
        return self.own_batch(step if number is None else number), self.generator(step)

    def own_batch(self, number: int) -> Batch:
        """This worker's part of a batch of the stream, on its device."""
        return self.stream.batch(number, self.shard.rows(self.stream.batch_size)).to(self.device)

    def generator(self, step: int) -> torch.Generator:
        return shard_generator(self.plan.seed, "noise", step, shard=self.shard, device=self.device)

    def collect(self, losses: Losses, step: int, prefix: str, weight: int = 1) -> None:
        """Adds the parts to the epoch's means, on the device. Raises ValueError on a value that is not finite."""
        if not math.isfinite(losses.total.detach()):
            raise ValueError(_not_finite(losses, step))
        if not losses.watched:
            return
        names = tuple(f"{prefix}/{name}" for name in ("loss", *losses.parts))
        values = torch.stack([value.detach().float() for value in (losses.total, *losses.parts.values())])
        self._sums[names] = self._sums.get(names, torch.zeros_like(values)).add_(values, alpha=weight)
        self._counts[names] = self._counts.get(names, 0) + weight

    def update(self, step: int) -> None:
        """Everything that is done at `step`, counted from 0."""
        raise NotImplementedError

    def training_step(self, steps: range, _: int) -> None:
        for step in steps:
            self.update(step)
            torch.clear_autocast_cache()  # it keeps weights in half precision, which are now others

    def compute_gradients(self, total: Tensor) -> None:
        """Through Lightning where workers share the batch; alone its hooks would cost 0.3 ms and do nothing."""
        if self.shard.size > 1:
            self.manual_backward(total)
        else:
            total.backward()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ARG002
        """The batch as it is: a step moves its own."""
        return batch

    def on_train_epoch_start(self) -> None:
        self._sums, self._counts = {}, {}

    def on_train_epoch_end(self) -> None:
        """Validation has run by now, so one entry holds both."""
        last = min(self.steps_done + self.plan.steps_per_epoch, self.plan.steps)
        own: dict[str, float] = {}
        for names, totals in self._sums.items():
            own |= dict(zip(names, totals.tolist(), strict=True))
            own |= {f"count of {name}": self._counts[names] for name in names}
        sums = sum_over_workers(own)
        epoch = {name: sums[name] / sums[f"count of {name}"] for name in sums if f"count of {name}" in sums}
        if self.measure is not None:
            epoch |= self.measure(last, self.history)
        self.log_dict(epoch)
        self.history.append({"step": last, **epoch})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]

    def on_train_start(self) -> None:
        """By now a checkpoint has been restored, with the settings of the fit that wrote it."""
        planned: Any = self.configure_optimizers()
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        adopt_settings(self.trainer.optimizers, schedulers, planned[0])


class SingleLossModule(FitModule):
    """Trains an RBM, a VAE or a classifier: anything with `training_losses`."""

    def update(self, step: int) -> None:
        batch, generator = self.begin_step(step)
        losses = cast("LossModel", self.model).training_losses(batch, step, generator)
        average_means(self.model)
        self.collect(losses, step, "train")
        optimizer = self.trainer.optimizers[0]
        optimizer.zero_grad()
        self.compute_gradients(losses.total)
        optimizer.step()
        cast("LambdaLR", self.trainer.lr_scheduler_configs[0].scheduler).step()

    def on_validation_start(self) -> None:
        gather_rows(self.model)

    def validation_step(self, batch: Batch, index: int) -> None:
        if not len(batch.labels):  # there are fewer batches than workers
            return
        step = self.steps_done + self.plan.steps_per_epoch
        number = index * self.shard.size + self.shard.rank
        generator = make_generator(self.plan.seed, "validation", number, device=self.device)
        losses = cast("LossModel", self.model).validation_losses(batch.to(self.device), step, generator)
        self.collect(losses, step, "val", weight=len(batch.labels))

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.plan)
        factor = lambda step: schedule_factor(self.plan.schedule, step, self.plan.steps)  # noqa: E731
        return [optimizer], [{"scheduler": LambdaLR(optimizer, factor), "interval": "step"}]


class AdversarialModule(FitModule):
    """Trains a GAN: discriminator updates, each on a batch of its own, then one generator update, a step."""

    def update(self, step: int) -> None:
        gan = cast("AdversarialModel", self.model)
        for_discriminator, for_generator = cast("list[Optimizer]", self.optimizers())
        rounds = gan.discriminator_steps
        batch, generator = self.begin_step(step, step * rounds)
        for number in range(step * rounds, (step + 1) * rounds):
            batch = batch if number == step * rounds else self.own_batch(number)
            losses = gan.discriminator_losses(batch, number, generator)
            average_means(self.model)
            self._update(for_discriminator, losses, step, "train/d")
        self._update(for_generator, gan.generator_losses(batch, step, generator), step, "train/g")
        gan.update_average(step)

    def _update(self, optimizer: Optimizer, losses: Losses, step: int, prefix: str) -> None:
        optimizer.zero_grad()
        self.compute_gradients(losses.total)
        optimizer.step()
        torch.clear_autocast_cache()  # the other network's loss goes through the weights as they are now
        self.collect(losses, step, prefix)

    def configure_optimizers(self) -> Any:
        gan = cast("AdversarialModel", self.model)
        return [make_optimizer(gan.discriminator, self.plan), make_optimizer(gan.generator, self.plan)], []


def _not_finite(losses: Losses, step: int) -> str:
    parts = {name: float(value.detach()) for name, value in {"loss": losses.total, **losses.parts}.items()}
    bad = ", ".join(f"{name} = {value}" for name, value in parts.items() if not torch.isfinite(torch.tensor(value)))
    return f"training diverged at step {step}: {bad}; lower the learning rate (lr) of this stage in params.yaml"


def _seed_global_state(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, without the stack traces that it keeps for devices that are not there: 1 ms a step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)

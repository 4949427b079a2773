"""Fits a model: the only place that builds a `pl.Trainer`."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from pipeline.models.losses import Batch
from pipeline.row_noise import Shard
from pipeline.training.ddp import make_strategy
from pipeline.training.module import AdversarialModule, FitModule, SingleLossModule
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.private_module import PrivateLossModule
from pipeline.training.stream import Stream
from pipeline.training.workers import current_host, current_shard, gather_rows

PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}

OnEpoch = Callable[[int, Epoch], None]
Measure = Callable[[int, Sequence[Epoch]], Epoch]


def fit(
    model: nn.Module,
    stream: Stream,
    plan: FitPlan,
    *,
    validation: Sequence[Batch] = (),
    checkpoint: Path | None = None,
    measure: Measure | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[Epoch]:
    """Trains `model` in place and returns one entry per epoch: {"step", "train/<part>", "val/<part>"}.

    checkpoint: a file that is written after every epoch and, if it exists, is gone on from; the result is the same
    bit for bit as that of a fit that was never stopped. measure(step, history) gives further values for each entry,
    from the entries before it.
    on_epoch(step, entry) hears of every epoch as it ends; an exception it raises stops the fit.
    Inside a process group (see workers.py) every worker calls this with the same arguments; they share each batch and
    end with the same weights, and rank 0 alone writes the checkpoint and calls on_epoch.
    Raises ValueError when a loss is not finite.
    """
    adversarial = hasattr(model, "discriminator_losses")
    kind = AdversarialModule if adversarial else PrivateLossModule if plan.private else SingleLossModule
    module = kind(model, stream, plan)
    module.measure = measure
    host = current_host()
    checkpoint = host.checkpoint if host is not None else checkpoint
    with warnings.catch_warnings():
        _silence()
        trainer = make_trainer(plan, [_AfterEpoch(checkpoint, on_epoch)], adversarial=adversarial)
        steps = _Steps(module)
        resume = checkpoint if checkpoint is not None and checkpoint.is_file() else None
        loader = _Whole(_own_batches(validation, module.shard)) if validation and not adversarial else None
        trainer.fit(module, steps, loader, ckpt_path=resume, weights_only=resume is not None)
    gather_rows(model)
    model.to("cpu").eval()
    return module.history


def make_trainer(plan: FitPlan, callbacks: list[pl.Callback], *, adversarial: bool = False) -> pl.Trainer:
    """A bare trainer: per-step logging, the bar and Lightning's checkpoints cost more than a small model's step."""
    workers = current_shard().size
    trainer = pl.Trainer(
        accelerator=plan.accelerator,
        devices=1 if plan.accelerator == "cpu" else [torch.cuda.current_device()],
        num_nodes=workers,  # each worker is a node of one device to Lightning, wherever it runs
        strategy=make_strategy(adversarial=adversarial) if workers > 1 else "auto",
        precision=PRECISION[plan.precision],  # type: ignore[arg-type]
        max_epochs=plan.epochs,
        callbacks=callbacks,
        deterministic=plan.accelerator != "cpu",  # on CPU our operators are deterministic, and the switch costs speed
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    # By a broadcast before every update Lightning tells all workers of a SIGTERM: 2 ms on CPU, and on GPUs a wait for
    # all that is queued. A stopped worker is a lost one here, and every fit goes on from its checkpoint.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


UPDATES_PER_CALL = 32
"""Of Lightning, where nobody shares the batch: DistributedDataParallel wants a call for each update."""


class _Steps:
    """The update numbers of the coming epoch, call by call: batches are computed from them inside the step.

    Counted from the history, which a checkpoint restores before Lightning asks for the first batch; its own epoch
    counter is restored later.
    """

    def __init__(self, module: FitModule) -> None:
        self._module = module

    def __iter__(self) -> Iterator[range]:
        first, plan = self._module.steps_done, self._module.plan
        size = UPDATES_PER_CALL if self._module.shard.size == 1 else 1
        epoch = range(first, min(first + plan.steps_per_epoch, plan.steps))
        return (epoch[start : start + size] for start in range(0, len(epoch), size))


class _Whole:
    """Validation batches as one loader: Lightning would take a list for a collection of loaders."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def _own_batches(validation: Sequence[Batch], shard: Shard) -> Sequence[Batch]:
    """Every N-th batch; one without rows for a worker that is left without, as Lightning wants one of each."""
    return validation[shard.rank :: shard.size] or [Batch(validation[0].images[:0], validation[0].labels[:0])]


class _AfterEpoch(pl.callbacks.Checkpoint):
    """Saves, then reports: a listener that stops the fit loses nothing.

    A `Checkpoint` by type, because Lightning runs those after the module's own hook, when the history is complete.
    """

    def __init__(self, checkpoint: Path | None, on_epoch: OnEpoch | None) -> None:
        super().__init__()
        self._checkpoint, self._on_epoch = checkpoint, on_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, FitModule)
        if self._checkpoint is not None and trainer.current_epoch + 1 < pl_module.plan.epochs:
            gather_rows(pl_module)
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._checkpoint.with_suffix(".tmp")
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                temporary.replace(self._checkpoint)
            if (host := current_host()) is not None:
                host.on_saved()
        if self._on_epoch is not None and trainer.is_global_zero:
            entry = pl_module.history[-1]
            self._on_epoch(int(entry["step"]), entry)


def _silence() -> None:
    """Tips and hints that are Lightning's, not ours."""
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\..*")

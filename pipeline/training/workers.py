"""Who else trains this model: the process group that torch.distributed is in, or this process alone.

A function that ends in `fit` runs unchanged on one worker or on many: each worker calls it with the same arguments, and
`fit` finds the group. Who started the workers says with `hosted` where the checkpoints go.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, nn

from pipeline.row_noise import WHOLE, Shard


def current_shard() -> Shard:
    """This worker's rank and the number of workers; rank 0 of 1 outside a process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return WHOLE
    return Shard(distributed.get_rank(), distributed.get_world_size())


@dataclass(frozen=True)
class Host:
    """What a fit is told by who started its workers.

    checkpoint: the file to go on from and to write; only rank 0 writes. on_saved: called on every worker after each.
    """

    checkpoint: Path
    on_saved: Callable[[], None]


_HOST: ContextVar[Host | None] = ContextVar("host", default=None)


@contextmanager
def hosted(host: Host) -> Iterator[None]:
    """Fits inside the block keep their checkpoint with `host` instead of where their caller says."""
    token = _HOST.set(host)
    try:
        yield
    finally:
        _HOST.reset(token)


def current_host() -> Host | None:
    return _HOST.get()


def sum_over_workers(sums: Mapping[str, float]) -> dict[str, float]:
    """Each value summed over the workers; one that a worker lacks counts as 0 there. The same on all of them."""
    shard = current_shard()
    if shard.size == 1:
        return dict(sums)
    everyone: list[dict[str, float]] = [{} for _ in range(shard.size)]
    distributed.all_gather_object(everyone, dict(sums))
    names = dict.fromkeys(name for one in everyone for name in one)
    return {name: sum(one.get(name, 0.0) for one in everyone) for name in names}


@torch.no_grad()
def average_means(model: nn.Module) -> None:
    """Replaces the buffers that workers move on by means over their own rows (`mean_buffers`) by the workers' mean."""
    shard = current_shard()
    if shard.size == 1:
        return
    for module in model.modules():
        for name in getattr(module, "mean_buffers", ()):
            mean: torch.Tensor = getattr(module, name)
            if len(mean):
                distributed.all_reduce(mean)
                mean.div_(shard.size)


@torch.no_grad()
def gather_rows(model: nn.Module) -> None:
    """Brings together the buffers that workers move on by rows (`row_buffers`, such as persistent chains)."""
    shard = current_shard()
    if shard.size == 1:
        return
    for module in model.modules():
        for name in getattr(module, "row_buffers", ()):
            rows: torch.Tensor = getattr(module, name)
            if len(rows):
                parts = [torch.empty_like(rows[shard.rows(len(rows))]) for _ in range(shard.size)]
                distributed.all_gather(parts, rows[shard.rows(len(rows))].contiguous())
                rows.copy_(torch.cat(parts))

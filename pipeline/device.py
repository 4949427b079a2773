"""Accelerator, precision and threads: the one place that asks what the machine has."""

import torch
from threadpoolctl import threadpool_limits

from pipeline.config.run import Run


def run_accelerator(run: Run) -> str:
    """cpu or gpu, for what `run` describes: workers that get GPUs have one, this machine need not.

    Raises ValueError as `resolve_accelerator` does.
    """
    return "gpu" if run.gpus_per_worker > 0 else resolve_accelerator(run.accelerator)


def resolve_accelerator(wanted: str) -> str:
    """cpu or gpu. Raises ValueError when a GPU is asked for and there is none."""
    has_gpu = torch.cuda.is_available()
    if wanted == "gpu" and not has_gpu:
        raise ValueError("run.accelerator is gpu but torch finds no GPU: set it to auto or cpu in params.yaml")
    return "gpu" if has_gpu and wanted in ("gpu", "auto") else "cpu"


def resolve_device(wanted: str) -> torch.device:
    return torch.device("cuda" if resolve_accelerator(wanted) == "gpu" else "cpu")


def set_threads(count: int) -> None:
    """CPU threads of this process, torch's and BLAS's. Results differ between counts, so it is never the machine's."""
    torch.set_num_threads(count)
    threadpool_limits(count)

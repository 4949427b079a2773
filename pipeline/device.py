"""Accelerator, precision and threads: the one place that asks what the machine has."""

import torch

LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}


def resolve_accelerator(wanted: str) -> str:
    """cpu or gpu. Raises ValueError when a GPU is asked for and there is none."""
    has_gpu = torch.cuda.is_available()
    if wanted == "gpu" and not has_gpu:
        raise ValueError("run.accelerator is gpu but torch finds no GPU: set it to auto or cpu in params.yaml")
    return "gpu" if has_gpu and wanted in ("gpu", "auto") else "cpu"


def resolve_device(wanted: str) -> torch.device:
    return torch.device("cuda" if resolve_accelerator(wanted) == "gpu" else "cpu")


def set_threads(count: int) -> None:
    """CPU threads of this process. Results differ between counts, so callers take it from params.yaml."""
    torch.set_num_threads(count)

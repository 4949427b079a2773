"""Seeds derived from what a random draw is for, never from the order in which code happens to run."""

import hashlib

import numpy as np
import torch


def derive_seed(root: int, *identity: str | int) -> int:
    """A seed in [0, 2**63) that depends on `root` and on every part of `identity`, in order.

    SHA-256 of the parts: neighbouring roots or steps give unrelated streams, and the value is the same in every
    process and on every platform.
    """
    text = "\x1f".join([str(root), *(f"{type(part).__name__}:{part}" for part in identity)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(root: int, *identity: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(root, *identity))


def make_numpy_rng(root: int, *identity: str | int) -> np.random.Generator:
    """A numpy generator (PCG64), seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(root, *identity))

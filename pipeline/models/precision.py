"""Where half precision ends."""

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """float32 where `x` is float16 or bfloat16, else `x` itself.

    Products may run in half precision; probabilities, free energies and uniforms must not: bfloat16 has 8 bits.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

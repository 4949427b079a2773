"""Standardisation that constant inputs survive."""

from torch import Tensor

FLOOR = 0.1


def floor_std(std: Tensor) -> Tensor:
    """`std` with small entries raised to a tenth of their root mean square (to 1 where all are 0).

    A border pixel that lights up once in a thousand images would otherwise count hundreds of standard deviations.
    """
    typical = std.square().mean().sqrt()
    if typical == 0:
        return std.new_ones(()).expand_as(std)
    return std.clamp(min=FLOOR * float(typical))

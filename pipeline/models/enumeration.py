"""log Z of small RBMs by enumeration of their hidden states."""

# N hidden states, H hidden units

import torch
from torch import Tensor

from pipeline.models.rbm_gradients import Parameters
from pipeline.models.units import VisibleUnits

MAX_ENUMERATED = 20


def enumerate_log_partition(units: VisibleUnits, at: Parameters, like: Tensor | None = None) -> Tensor:
    """log sum_h exp(c.h) sum_v exp(t(v) W h - e(v)), a float64 scalar that can be differentiated.

    like: (B, V), states whose examples have models of their own; then (B,).  Raises ValueError when H > 20.
    """
    num_hidden = at.weight.shape[1]
    if num_hidden > MAX_ENUMERATED:
        raise ValueError(f"log Z is enumerated up to {MAX_ENUMERATED} hidden units, not {num_hidden}: use AIS")
    states = torch.arange(2**num_hidden, device=at.weight.device)[:, None]
    h_NH = (states >> torch.arange(num_hidden, device=states.device) & 1).double()
    W, c, b, z = (parameter.double() for parameter in at)
    like = None if like is None else like.double()
    from_biases = h_NH @ c if like is None else units.scale(like, h_NH @ c)
    return torch.logsumexp(from_biases + units.log_sum(h_NH @ W.t(), b, z, like), -1)

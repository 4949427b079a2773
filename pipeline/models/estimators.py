"""Estimates of the gradient of an RBM's log-likelihood: CD-k, PCD-k, parallel tempering, or exact by enumeration.

Any of them may be centred: Montavon & Mueller 2012; Melchior, Fischer, Wiskott 2016. tests/test_estimators.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.models.contrastive import Phase, contrastive_divergence, with_gradients
from pipeline.models.enumeration import enumerate_log_partition
from pipeline.models.hidden_units import HIDDEN, HiddenUnits
from pipeline.models.losses import Losses
from pipeline.models.rbm_gradients import Parameters, autograd_gradients, centre, contrast_gradients
from pipeline.models.units import Bernoulli, VisibleUnits
from pipeline.row_noise import own_rows

if TYPE_CHECKING:
    from pipeline.models.rbm import RBM


def check_estimator(
    visible: VisibleUnits, hidden: HiddenUnits, num_chains: int, num_temperatures: int, *, exact: bool
) -> None:
    """Raises ValueError for options of an RBM that do not fit together."""
    if num_chains > 0 and visible.per_example:
        raise ValueError(
            f"num_chains must be 0 with {type(visible).__name__} units, whose examples have models of their own, "
            f"got {num_chains}: use CD"
        )
    if num_temperatures > 1 and num_chains == 0:
        raise ValueError(f"num_temperatures must be 1 without persistent chains, got {num_temperatures}: use PCD")
    if not hidden.binary and (exact or num_temperatures > 1):
        name = next(name for name, kind in HIDDEN.items() if kind is hidden)
        raise ValueError(f"hidden must be bernoulli for exact gradients and tempering, got {name}: use CD or PCD")


@dataclass(frozen=True)
class Estimate:
    """losses: the total's gradient is minus the update.  end: where the chains have moved to.

    Where the losses are not watched, neither are the phases' free energies.
    """

    losses: Losses
    data: Phase
    end: Tensor


def estimate(rbm: RBM, x: Tensor, step: int, generator: torch.Generator, *, watched: bool = True) -> Estimate:
    """The contrast of the inputs x (B, ...), in their own units, with the model; nothing of `rbm` changes.

    Without `watched` draws and gradients are the same, but neither free energies nor errors are computed.
    """
    with torch.no_grad():
        v = rbm.standardise(x)
        inputs = rbm.hidden_inputs(v)
        data = rbm.phase(v, inputs, watched=watched)
        reconstruction = rbm.visible_mean(rbm.hidden_units.sample(inputs, generator, data.hidden), v)
        offsets = rbm.offsets()
    now, product = rbm.parameters_now(), _product_type(rbm, x.device.type)
    parts = {"free_energy_data": data.free_energy.mean()} if watched else {}
    if rbm.exact:
        end, like = rbm.chains, v if rbm.units.per_example else None
        parts["log_partition"] = rbm.log_partition(like).mean().to(v.dtype)

        def loss() -> Tensor:
            return rbm.free_energy(v).mean() + enumerate_log_partition(rbm.units, now, like).mean()

        value = data.free_energy.mean() + parts["log_partition"]
        total = with_gradients(value, lambda: centre(autograd_gradients(loss, now), *offsets), now)
    else:
        with torch.no_grad():
            end, moved = _move_chains(rbm, reconstruction, step, generator)
            v_model = end if rbm.num_temperatures == 1 else end[:, 0]
            model = rbm.phase(v_model, rbm.hidden_inputs(v_model), watched=watched)

        def contrast(data: Phase, model: Phase) -> Parameters:
            return centre(contrast_gradients(data, model, rbm.units, now, product=product), *offsets)

        if not watched:
            finite = model.hidden.mean()  # weights that are not finite leave no mean that is
            return Estimate(Losses(with_gradients(finite, lambda: contrast(data, model), now), {}, False), data, end)
        total = contrastive_divergence(data, model, contrast, now)
        parts |= {"free_energy_model": model.free_energy.mean(), **moved}
    parts |= {"reconstruction_error": functional.mse_loss(reconstruction, v), "activity": data.hidden.mean()}
    return Estimate(Losses(total, parts), data, end)


def _product_type(rbm: RBM, device: str) -> torch.dtype | None:
    """Half precision where autocast asks for it and the statistics are bounded; centring takes differences of them."""
    bounded = isinstance(rbm.units, Bernoulli) and rbm.hidden_units.binary and not rbm.centred
    return torch.get_autocast_dtype(device) if bounded and torch.is_autocast_enabled(device) else None


def _move_chains(
    rbm: RBM, reconstruction: Tensor, step: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Where chains from the data, or the persistent ones, have moved to; and what is worth showing of the way."""
    if not len(rbm.chains):
        first = rbm.units.sample(reconstruction, rbm.log_variance, generator)
        return rbm.gibbs(first, rbm.gibbs_steps - 1, generator), {}
    chains = rbm.chains[own_rows(len(rbm.chains), generator)]
    if rbm.num_temperatures == 1:
        return rbm.gibbs(chains, rbm.gibbs_steps, generator), {}
    end, rate = rbm.ladder().move(chains, rbm.gibbs_steps, step, generator)
    return end, {"swap_rate": rate}

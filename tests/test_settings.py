"""A fit that goes on from another fit's checkpoint: the other's weights and moments, its own settings."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.training import fit as fitting
from pipeline.training.fit import fit
from pipeline.training.plan import FitPlan, schedule_factor
from tests.test_training import Regression, Toy, plan, stream


class Watched(Regression):
    """Remembers its weights at its first update."""

    seen: Tensor | None = None

    def training_losses(self, batch: Any, step: int, generator: torch.Generator) -> Any:
        if self.seen is None:
            self.seen = self.net[1].weight.detach().clone()  # type: ignore[operator]
        return super().training_losses(batch, step, generator)


def stop_at(step: int) -> Any:
    def hear(done: int, _: object) -> None:
        if done == step:
            raise InterruptedError

    return hear


def leave_checkpoint(model: Any, file: Path, settings: FitPlan) -> None:
    with pytest.raises(InterruptedError):
        fit(model, stream(), settings, checkpoint=file, on_epoch=stop_at(4))


def spy_on_optimizers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Settings and moments of each optimiser as the first update after a resume is about to happen."""
    seen: list[dict[str, Any]] = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if not seen:
                for optimizer in trainer.optimizers:
                    state = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
                    moments = [entry["exp_avg"].clone() for entry in optimizer.state.values()]
                    seen.append({**state, "moments": moments, "groups": [g["lr"] for g in optimizer.param_groups]})

    make = fitting.make_trainer
    monkeypatch.setattr(
        fitting, "make_trainer", lambda *args, **kwargs: make(args[0], [*args[1], Spy()], *args[2:], **kwargs)
    )
    return seen


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_fit_goes_on_from_a_donors_weights_and_moments_with_its_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    donor, file = Regression(), tmp_path / "fit.ckpt"
    leave_checkpoint(donor, file, plan(lr=0.01, weight_decay=0.1, schedule=schedule))
    stored = torch.load(file, weights_only=True)
    seen = spy_on_optimizers(monkeypatch)
    heir = Watched()
    history = fit(heir, stream(), plan(lr=0.5, weight_decay=0.2, schedule=schedule), checkpoint=file)
    assert heir.seen is not None
    assert torch.equal(heir.seen, stored["state_dict"]["model.net.1.weight"]), "the donor's weights"
    assert all(
        torch.equal(moment, entry["exp_avg"])
        for moment, entry in zip(seen[0]["moments"], stored["optimizer_states"][0]["state"].values(), strict=True)
    )
    wanted = 0.5 * schedule_factor(schedule, 4, 10)  # type: ignore[arg-type]
    assert seen[0]["groups"] == [wanted, wanted]
    assert (seen[0]["initial_lr"], seen[0]["weight_decay"]) == (0.5, 0.2)
    assert [entry["step"] for entry in history] == [4, 8, 10]


def test_the_new_rate_acts_on_every_later_update(tmp_path: Path) -> None:
    """With a rate of almost nothing the donor's weights stay where they are."""
    file = tmp_path / "fit.ckpt"
    leave_checkpoint(Regression(), file, plan(lr=0.01, schedule="linear_tail"))
    heir = Regression()
    fit(heir, stream(), plan(lr=1e-12, schedule="linear_tail"), checkpoint=file)
    stored = torch.load(file, weights_only=True)["state_dict"]
    for name, parameter in heir.named_parameters():
        assert torch.allclose(parameter, stored[f"model.{name}"], atol=1e-9), name


def test_both_optimisers_of_an_adversarial_fit_take_the_new_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gan.ckpt"
    leave_checkpoint(Toy(), file, plan(lr=0.01))
    seen = spy_on_optimizers(monkeypatch)
    fit(Toy(), stream(), plan(lr=0.03, betas=(0.5, 0.9)), checkpoint=file)
    assert [(entry["lr"], entry["betas"]) for entry in seen] == [(0.03, (0.5, 0.9))] * 2

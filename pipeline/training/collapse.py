"""Looks at a GAN while it trains, and an end to a run that has collapsed."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config.generators import Gan
from pipeline.metrics.collapse import COLLAPSED, Reference, Verdict, name_verdict
from pipeline.models.gan import ConditionalGAN
from pipeline.seeding import make_generator
from pipeline.training.plan import Epoch

NUM_LOOKED = 200
"""Images in a look."""
PATIENCE = 4
"""Looks in a row that must find a collapse before the end."""
UNTRAINED = 150
"""No look counts up to this update, nor in the first quarter of a run: the moving average still shows what an untrained
generator makes. On digits it has left that after 90 updates."""
LOOK = ("coverage", "real_coverage", "duplicates", "real_duplicates")
IN_A_ROW = "look/collapsed_in_a_row"


def collapse_watch(
    config: Gan, images: npt.NDArray[np.uint8], *, name: str, seed: int
) -> Callable[[ConditionalGAN, int, Sequence[Epoch]], Epoch]:
    """watch(model, step, history): look/coverage and the like, of the same latents and labels at every look.

    images: (N, C, H, W), of the train pool.  It raises ValueError, where config.on_collapse is stop, for a run that is
    found collapsed at its last step or at PATIENCE looks in a row. Few images (under 50) are not looked at.
    """
    count = min(NUM_LOOKED, len(images) // 2)
    if count < 25:
        return lambda *_: {}
    order = make_generator(seed, "looks", "images")
    chosen = torch.randperm(len(images), generator=order)[: 2 * count].numpy()
    real = images[chosen].reshape(2 * count, -1).astype(np.float64) / 255
    reference = Reference(real[:count], real[count:])

    def watch(model: ConditionalGAN, step: int, history: Sequence[Epoch]) -> Epoch:
        device = next(model.parameters()).device
        labels = torch.arange(count) % model.num_classes
        made = model.sample(labels.to(device), make_generator(seed, "looks", "latents", device=device))
        found = reference.look(made.cpu().double().flatten(1).numpy())
        verdict = name_verdict(**found)
        before = history[-1][IN_A_ROW] if history else 0.0
        row = before + 1 if verdict.name == COLLAPSED and step > max(UNTRAINED, config.steps / 4) else 0.0
        if config.on_collapse == "stop" and (row >= PATIENCE or (row > 0 and step >= config.steps)):
            raise ValueError(
                f"{name}: {verdict.sentence} at step {step} of {config.steps}, {row:.0f} looks in a row. Lower gan.lr, "
                "raise gan.r1_weight or gan.batch_size, or set gan.on_collapse to warn in params.yaml to go on"
            )
        return {f"look/{key}": value for key, value in found.items()} | {IN_A_ROW: row}

    return watch


def last_verdict(history: Sequence[Epoch]) -> Verdict | None:
    """Of the last look; None where there was none."""
    last = history[-1]
    return name_verdict(**{key: last[f"look/{key}"] for key in LOOK}) if IN_A_ROW in last else None

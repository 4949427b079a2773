"""Anomaly maps as pictures: where a detector finds an image strange."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import Images, Labels
from pipeline.data.pictures import image_grid
from pipeline.models.detectors import Detector

SHOWN = 8
"""Normal images, and as many anomalies."""


def draw_maps(maps: Tensor, channels: int) -> Images:
    """(B, H, H) >= 0 in one unit -> (B, C, H, H) uint8, 1 and above white: equal greys are equal differences."""
    grey = maps.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return grey[:, None].repeat(channels, axis=1)


def map_grid(detectors: Sequence[Detector], images: Images, labels: Labels, normal_class: int) -> Images:
    """The first normal images, then the first anomalies of one class after the other; below them each detector's maps.

    images: uint8 (N, C, H, W).  Returns (height, width, C) uint8.
    """
    shown = np.array(images[choose_shown(labels, normal_class)])
    rows = [shown]
    for detector in detectors:
        maps = detector.maps(torch.from_numpy(shown).float() / 255)
        if maps is not None:
            rows.append(draw_maps(maps, shown.shape[1]))
    return image_grid(np.concatenate(rows), len(shown))


def choose_shown(labels: Labels, normal_class: int) -> Labels:
    """Positions of at most SHOWN normal images and SHOWN anomalies, whose classes take turns."""
    normal = np.flatnonzero(labels == normal_class)[:SHOWN]
    others = [np.flatnonzero(labels == label) for label in np.unique(labels) if label not in (normal_class, -1)]
    turns = [members[turn] for turn in range(SHOWN) for members in others if turn < len(members)]
    return np.array([*normal, *turns[:SHOWN]], dtype=np.int64)

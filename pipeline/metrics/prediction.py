"""Predictions of a trained classifier for a whole split."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IMAGES_AT_ONCE = 1000


class Classifier(Protocol):
    def predict_log_probabilities(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, K), natural logarithms."""
        ...


def predict_split(model: Classifier, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """log P(class | image) for every image of a split: (N, C, H, W) uint8, maybe mapped from a file -> (N, K)."""
    chunks = [images[start : start + IMAGES_AT_ONCE] for start in range(0, len(images), IMAGES_AT_ONCE)]
    with torch.no_grad():
        return np.concatenate(
            [
                model.predict_log_probabilities(torch.from_numpy(np.array(chunk)).float() / 255).numpy()
                for chunk in chunks
            ]
        )

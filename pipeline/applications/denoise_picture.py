"""What every method makes of a few test images, one below the other."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pipeline.applications.denoise import Restored
from pipeline.data.arrays import Images
from pipeline.models.pictures import to_uint8

COLUMNS = 12


def restoration_rows(clean: Tensor, scores: Mapping[str, Mapping[str, Restored]]) -> tuple[Images, int]:
    """Tiles for `image_grid` and their columns: for each kind of noise the clean images, then a row a method."""
    columns = min(COLUMNS, len(clean))
    rows = [
        images[:columns]
        for restored in scores.values()
        for images in (clean, *(row.images for row in restored.values()))
    ]
    return np.concatenate([to_uint8(row.clamp(0, 1)) for row in rows]), columns

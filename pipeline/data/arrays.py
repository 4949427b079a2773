"""What arrays of images and labels are, everywhere in the pipeline."""

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
"""(N, C, H, W), 0..255, C 1 or 3."""
Labels = npt.NDArray[np.int64]
"""(N,), 0..num_classes-1, or UNLABELLED."""
Indices = npt.NDArray[np.int64]
"""Positions in a split."""

UNLABELLED = -1
"""Label of an image whose class is unknown; only the train split holds such images."""
SIDES = range(28, 65, 4)
"""Sides in pixels that the models take: multiples of 4, so that two poolings by 2 divide them."""

"""A map of codes: small images at the places that t-SNE (van der Maaten & Hinton 2008) gives them, tinted by class."""

import colorsys

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE

from pipeline.data.arrays import Images, Labels
from pipeline.metrics.score import Floats

SIDE = 640
"""Of the map, in pixels."""
PERPLEXITY = 30.0


def draw_map(codes: Floats, images: Images, labels: Labels, seed: int) -> npt.NDArray[np.uint8]:
    """(SIDE, SIDE, 3): codes (N, Z), images (N, C, H, W) uint8, labels (N,)."""
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    places = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(np.asarray(codes, np.float32))
    small = images[:, :, ::2, ::2].max(axis=1)
    height, width = small.shape[1:]
    low, high = places.min(0), places.max(0)
    corners = ((places - low) / (high - low) * (SIDE - np.array([width, height]))).astype(int)
    colours = np.array([colorsys.hsv_to_rgb(k / (labels.max() + 1), 0.75, 1.0) for k in range(labels.max() + 1)])
    canvas = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    for (left, top), image, label in zip(corners, small, labels, strict=True):
        part = canvas[top : top + height, left : left + width]
        np.maximum(part, (image[:, :, None] * colours[label]).astype(np.uint8), out=part)
    return canvas

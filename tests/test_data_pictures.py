from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.pictures import GAP_VALUE, class_grid, image_grid, write_png

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)


def test_tiles_lie_row_by_row_with_a_line_between() -> None:
    grid = image_grid(IMAGES, columns=3)
    assert grid.shape == (2 * 5 - 1, 3 * 7 - 1, 3)
    for index in range(5):
        top, left = index // 3 * 5, index % 3 * 7
        assert np.array_equal(grid[top : top + 4, left : left + 6], IMAGES[index].transpose(1, 2, 0))
    assert (grid[4] == GAP_VALUE).all()
    assert (grid[:, 6] == GAP_VALUE).all()
    assert (grid[5:, 14:] == GAP_VALUE).all()


def test_row_k_of_a_class_grid_shows_class_k_and_black_where_it_ends() -> None:
    grid = class_grid(IMAGES, np.array([1, 0, 1, -1, 1]), num_classes=2, columns=2)
    expected = image_grid(np.stack([IMAGES[1], np.zeros_like(IMAGES[0]), IMAGES[0], IMAGES[2]]), columns=2)
    assert np.array_equal(grid, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_reads_back_magnified_and_is_the_same_each_time(tmp_path: Path, channels: int) -> None:
    picture = image_grid(IMAGES[:, :channels], columns=5)
    write_png(tmp_path / "a.png", picture, magnify=2)
    write_png(tmp_path / "b.png", picture, magnify=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.atleast_3d(np.asarray(image))
    for row in range(2):
        for column in range(2):
            assert np.array_equal(pixels[row::2, column::2], picture)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a picture must be uint8 .*got float64 \(4, 4\)"):
        write_png(tmp_path / "a.png", np.zeros((4, 4)))
    with pytest.raises(ValueError, match="got 0 images and 2 columns"):
        image_grid(IMAGES[:0], columns=2)

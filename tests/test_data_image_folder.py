from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.image_folder import load_image_folder
from pipeline.data.raw import RawImages
from pipeline.data.watcher import Silent

RNG = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def load(folder: Path, size: int | None = None, channels: int | None = None) -> RawImages:
    return load_image_folder(folder, size=size, channels=channels, watcher=Silent())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dog", "cat"):
        for index in range(3):
            save(tmp_path / name / f"{index}.png", noise(28, 28))
    return tmp_path


def test_pixels_labels_and_names_come_back_in_sorted_order(tmp_path: Path) -> None:
    pixels = {f"{name}/{file}": noise(28, 28) for name in ("dog", "cat", "unlabelled") for file in ("b.png", "a.PNG")}
    for name, array in pixels.items():
        save(tmp_path / name, array)
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"litter")
    raw = load(tmp_path)
    order = ["cat/a.PNG", "cat/b.png", "dog/a.PNG", "dog/b.png", "unlabelled/a.PNG", "unlabelled/b.png"]
    assert np.array_equal(raw.images, np.stack([pixels[name] for name in order])[:, None])
    assert raw.labels.tolist() == [0, 0, 1, 1, -1, -1]
    assert raw.class_names == ["cat", "dog"]
    assert np.array_equal(load(tmp_path).images, raw.images)
    assert load(tmp_path).sha256 == raw.sha256


def test_the_hash_follows_names_and_contents(folder: Path) -> None:
    before = load(folder).sha256
    (folder / "cat" / "0.png").rename(folder / "cat" / "zero.png")
    renamed = load(folder).sha256
    save(folder / "cat" / "zero.png", noise(28, 28))
    assert len({before, renamed, load(folder).sha256}) == 3


def test_colour_is_kept_and_grey_is_luma(folder: Path) -> None:
    colour = noise(28, 28, 3)
    for file in folder.rglob("*.png"):
        save(file, colour)
    assert np.array_equal(load(folder).images[0], colour.transpose(2, 0, 1))
    luma = (colour @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(load(folder, channels=1).images[0, 0] - luma).max() <= 1


def test_resizing_averages_what_it_drops(folder: Path) -> None:
    stripes = np.zeros((112, 112), dtype=np.uint8)
    stripes[:, ::2] = 255
    for file in folder.rglob("*.png"):
        save(file, stripes)
    resized = load(folder, size=28).images
    assert resized.shape == (6, 1, 28, 28)
    inner = resized[:, :, 2:-2, 2:-2].astype(float)
    assert np.abs(inner - 127.5).max() < 3  # without anti-aliasing: all 0 or all 255


def test_sixteen_bit_grey_is_scaled_and_not_clipped(folder: Path) -> None:
    levels = np.linspace(0, 65535, 784).reshape(28, 28).astype(np.uint16)
    for file in folder.rglob("*.png"):
        save(file, levels)
    assert np.array_equal(load(folder).images[0, 0], np.rint(levels / 257))


def test_jpeg_is_read_and_turned_upright(folder: Path) -> None:
    left_dark = np.full((28, 28), 255, dtype=np.uint8)
    left_dark[:, :14] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the left comes to the top
    for file in sorted(folder.rglob("*.png")):
        file.unlink()
        save(file.with_suffix(".JPG"), left_dark, exif=exif.tobytes(), quality=95, format="JPEG")
    image = load(folder).images[0, 0]
    assert image[:10].max() < 30
    assert image[18:].min() > 225


@pytest.mark.parametrize("content", [b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(50), b""])
def test_an_undecodable_image_names_the_file(folder: Path, content: bytes) -> None:
    (folder / "dog" / "1.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"dog/1\.png .*: replace or remove it|dog/1\.png .*; replace or remove it"):
        load(folder)


def test_a_cut_off_image_names_the_file(folder: Path) -> None:
    file = folder / "cat" / "2.png"
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"cat/2\.png cannot be used: .*; replace or remove it"):
        load(folder)


def test_transparent_pixels_are_refused_and_opaque_ones_are_not(folder: Path) -> None:
    opaque = np.concatenate([noise(28, 28, 3), np.full((28, 28, 1), 255, dtype=np.uint8)], axis=2)
    for file in folder.rglob("*.png"):
        save(file, opaque)
    assert np.array_equal(load(folder).images[0], opaque[:, :, :3].transpose(2, 0, 1))
    opaque[0, 0, 3] = 0
    save(folder / "dog" / "0.png", opaque)
    with pytest.raises(ValueError, match=r"dog/0\.png cannot be used: it has transparent pixels"):
        load(folder)


@pytest.mark.parametrize("side", [24, 30, 68])
def test_a_side_the_models_cannot_take_points_to_image_size(tmp_path: Path, side: int) -> None:
    for name in "ab":
        save(tmp_path / name / "0.png", noise(side, side))
    with pytest.raises(ValueError, match=rf"{side}x{side} pixels: .*multiple of 4 in 28\.\.64: set data\.image_size"):
        load(tmp_path)
    assert load(tmp_path, size=32).images.shape == (2, 1, 32, 32)


def test_images_that_are_not_square_or_differ_point_to_image_size(folder: Path) -> None:
    save(folder / "dog" / "2.png", noise(32, 28))
    with pytest.raises(ValueError, match=r"dog/2\.png has 32x28 pixels, .*cat/0\.png 28x28: set data\.image_size"):
        load(folder)
    save(folder / "cat" / "0.png", noise(32, 28))
    with pytest.raises(ValueError, match=r"cat/0\.png has an image of 32x28 pixels: images must be square"):
        load(folder)


def test_a_mixture_of_grey_and_colour_points_to_channels(folder: Path) -> None:
    save(folder / "dog" / "2.png", noise(28, 28, 3))
    with pytest.raises(ValueError, match=r"dog/2\.png has 3 channel\(s\), .*cat/0\.png 1: set data\.channels"):
        load(folder)
    assert load(folder, channels=3).images.shape == (6, 3, 28, 28)


def test_empty_and_stray_things_are_named(folder: Path) -> None:
    (folder / "bird").mkdir()
    with pytest.raises(ValueError, match="bird is empty: put png or jpeg images into it, or remove it"):
        load(folder)
    (folder / "bird" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"bird/notes\.txt is not a png or jpeg file: convert it"):
        load(folder)
    (folder / "bird" / "notes.txt").unlink()
    (folder / "bird").rename(folder / "unlabeled")
    with pytest.raises(ValueError, match="unlabeled would count as a class: rename it unlabelled"):
        load(folder)
    (folder / "unlabeled").rmdir()
    save(folder / "lost.png", noise(28, 28))
    with pytest.raises(ValueError, match=r"lost\.png lies outside the class folders"):
        load(folder)


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.path .*nowhere is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has 0 class folder\(s\) \[\], at least 2 are needed"):
        load(tmp_path)

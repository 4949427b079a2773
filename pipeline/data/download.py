"""Published image sets, fetched over https with checksums and resume, or taken from a folder on this machine."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import FULL_DISK, explain_full_disk, hash_file
from pipeline.data.idx import FILES
from pipeline.data.watcher import Watcher

CHUNK = 1 << 16
TIMEOUT_S = 30.0
ROUNDS = 3


@dataclass(frozen=True)
class Published:
    """A set of four IDX files.

    folder: its name in the cache and in a mirror; homes: addresses that hold the files, tried in order; sha256: of the
    gzipped files, in the order of `idx.FILES`; class_names: by label.
    """

    folder: str
    homes: tuple[str, ...]
    sha256: tuple[str, str, str, str]
    class_names: list[str]


PUBLISHED = {
    "mnist": Published(
        "mnist",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        [str(digit) for digit in range(10)],
    ),
    "fashion_mnist": Published(
        "fashion-mnist",
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        [
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ],
    ),
    "kmnist": Published(
        "kmnist",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        # As TensorFlow Datasets publishes them (datasets/kmnist/checksums.tsv).
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
    ),
}


def fetch_published(published: Published, *, cache: Path, mirror: Path | None, watcher: Watcher) -> list[Path]:
    """Paths of the four files, in the order of `idx.FILES`: in `mirror` where it has them, otherwise in `cache`.

    Raises ValueError when a file's sha256 is wrong, or when it can't be fetched.
    """
    found = []
    for stem, sha256 in zip(FILES, published.sha256, strict=True):
        name = f"{stem}.gz"
        local = mirror / published.folder / name if mirror else None
        if local is None or not local.is_file():
            local = cache / published.folder / name
            fetch([home + name for home in published.homes], local, sha256, watcher=watcher)
        elif (actual := hash_file(local)) != sha256:
            raise ValueError(
                f"{local} has sha256 {actual}, wanted {sha256}: replace it by the published file, for instance from "
                f"{published.homes[0]}{name}"
            )
        found.append(local)
    return found


def fetch(
    urls: Sequence[str],
    target: Path,
    sha256: str,
    *,
    watcher: Watcher,
    timeout_s: float = TIMEOUT_S,
    wait_s: float = 1.0,
) -> None:
    """Brings the file with this sha256 to `target`, unless it is there already.

    Tries every address in turn, `ROUNDS` times, waiting longer from round to round. What has arrived is kept in
    `target` with .part and continued by an HTTP range request, also by a later run. timeout_s: longest silence of a
    server; wait_s: pause after the first round.
    """
    if target.is_file():
        if hash_file(target) == sha256:
            return
        watcher.say(f"{target} is damaged and is fetched again")
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failure = ""
    for attempt in range(ROUNDS):
        for url in urls:
            try:
                _continue(url, part, timeout_s, watcher)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in FULL_DISK:
                    raise
                failure = f"{url}: {error or type(error).__name__}"
            else:
                found = hash_file(part)
                if found == sha256:
                    part.replace(target)
                    return
                part.unlink()
                failure = f"{url}: what arrived has sha256 {found}, wanted {sha256}"
            watcher.say(f"not fetched: {failure}")
        time.sleep(wait_s * 2**attempt if attempt + 1 < ROUNDS else 0)
    raise ValueError(
        f"{target.name} could not be fetched ({failure}): check the network and run again, which goes on where this "
        f"stopped, or set LAYERWISE_DATA_MIRROR to a folder that holds {target.parent.name}/{target.name}"
    )


def _continue(url: str, part: Path, timeout_s: float, watcher: Watcher) -> None:
    """Downloads `url` into `part`, from where it ends. Raises OSError when the connection ends early."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {
        "User-Agent": "layerwise",
        "Accept-Encoding": "identity",
        **({"Range": f"bytes={have}-"} if have else {}),
    }
    watcher.say(f"fetching {url}" + (f", going on after {have} bytes" if have else ""))
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing lies beyond what we have; the checksum tells whether that is the file
        raise
    with response:
        _append(response, part, watcher)


def _append(response: http.client.HTTPResponse, part: Path, watcher: Watcher) -> None:
    """A server that ignores the range sends the whole file again: then `part` starts anew."""
    resumed = response.status == http.client.PARTIAL_CONTENT
    with explain_full_disk(part), part.open("ab" if resumed else "wb") as handle:
        before = handle.tell()
        length = response.headers.get("Content-Length")
        total = before + int(length) if length else 0
        with watcher.progress(total, part.name.removesuffix(".part")) as progress:
            while chunk := response.read(CHUNK):
                handle.write(chunk)
                progress.update(handle.tell())
        received = handle.tell()
    if received < total:
        raise ConnectionError(f"the connection ended after {received} of {total} bytes")

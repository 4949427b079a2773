"""A synthetic set for other people, by hand, outside DVC: `python -m stages.export --model vae --out folder`.

Writes images.npy, labels.npy, card.json and card.html, if the set's privacy audit was passed.
"""

import argparse
import shutil
import sys
from pathlib import Path

from pipeline import paths
from pipeline.artifacts import hash_file, write_json, write_text
from pipeline.command import run_command
from pipeline.config.classifier import GENERATORS
from pipeline.config.load import load_params
from pipeline.config.privacy import Privacy
from pipeline.data.card import CARD, CARD_PAGE, exportable, read_card
from pipeline.report.audit import render_card


def export(kind: str, draw: int, out: Path, limits: Privacy) -> None:
    """Raises ValueError where the set may not leave, is not the one that was audited, or `out` holds something."""
    card = read_card(kind)
    entry = exportable(card, draw, limits)
    folder = paths.synthetic(kind)
    images = folder / f"images-{draw}.npy"
    if not images.is_file() or hash_file(images) != entry["images_sha256"]:
        raise ValueError(f"{images} is not the set that {folder / CARD} describes: run `dvc repro augment@{kind}`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out must be a new or empty folder, got {out}: name another")
    own = card | {"sets": [entry], "verdict": entry["verdict"], "sentence": f"label draw {draw}: {entry['sentence']}"}
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(images, out / "images.npy")
    shutil.copyfile(folder / f"labels-{draw}.npy", out / "labels.npy")
    write_json(out / CARD, own)
    write_text(out / CARD_PAGE, render_card(own))


def main(words: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m stages.export", description=(__doc__ or "").splitlines()[-1])
    parser.add_argument("--model", required=True, choices=GENERATORS, help="whose images")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--draw", type=int, default=0, help="of which label draw's model; 0 without it")
    given = parser.parse_args(words)

    def body() -> Path:
        export(given.model, given.draw, given.out, load_params(Path("params.yaml")).section(Privacy))
        out: Path = given.out
        return out

    return run_command("export", body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

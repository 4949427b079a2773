"""The privacy audit of every synthetic set of a generator, as its card."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.artifacts import Json, hash_file, read_array, read_json
from pipeline.config.privacy import Privacy
from pipeline.data.card import GUARANTEE, limits
from pipeline.data.prepared import Prepared, load_manifest
from pipeline.metrics.privacy import Audit, Yardstick, audit_privacy, draw_candidates, make_yardstick
from pipeline.seeding import derive_seed
from pipeline.training.generators import load_generator
from pipeline.training.model_attacks import model_attacks
from pipeline.weights import load_weights

WORST_FIRST = ("failed", "broken", "inconclusive", "passed")


@dataclass(frozen=True)
class AuditedSet:
    """The synthetic set of a label draw. model, images: files, of which the card keeps the sha256."""

    draw: int
    model: Path
    images: Path
    audit: Audit


def audit_sets(kind: str, prepared: Prepared, folder: Path, config: Privacy, *, seed: int) -> Json:
    """The card of the sets in `folder`, made by the models of out/<kind>: each is attacked with the training images its
    model learned from, beside validation images.
    """
    train, holdout = np.array(prepared.train.images), np.array(prepared.validation.images)
    members, others = draw_candidates(
        len(train), len(holdout), config.audit_images, derive_seed(seed, "images to attack")
    )
    models = paths.generator(kind)
    files = [folder / f"images-{draw}.npy" for draw in range(len(prepared.subsets))]
    yardstick = make_yardstick(
        train, train[members], holdout[others], len(read_array(files[0])), seed=derive_seed(seed, "control")
    )
    sets = []
    for draw, file in enumerate(files):
        weights = models / f"{draw}.safetensors"
        scores = model_attacks(
            load_generator(kind, *load_weights(weights, kind=kind)), yardstick.members, yardstick.others
        )
        audit = audit_privacy(
            yardstick, np.array(read_array(file)), scores, config=config, seed=derive_seed(seed, "attacks", draw)
        )
        sets.append(AuditedSet(draw, weights, file, audit))
    data = load_manifest(prepared.folder)["files"]["train-images.npy"]["sha256"]
    promised = models / GUARANTEE
    training = read_json(promised) if promised.is_file() else None
    return make_card(kind, data, sets, yardstick, config, training)


def make_card(
    generator: str,
    data: str,
    sets: Sequence[AuditedSet],
    yardstick: Yardstick,
    config: Privacy,
    training: Json | None,
) -> Json:
    """The card as json, free of dates and folders.

    data: sha256 of the training images.  training: what the generator's fit guarantees by itself, None where it was
    trained without differential privacy.
    """
    told = [_tell(entry) for entry in sets]
    worst = min(told, key=lambda entry: WORST_FIRST.index(entry["verdict"]))
    return {
        "generator": generator,
        "data": {"train_images_sha256": data, "image_shape": list(yardstick.train.shape[1:])},
        "limits": limits(config),
        "control": yardstick.control,
        "floors": {name: asdict(score) for name, score in yardstick.floors.items()},
        "differential_privacy": training,
        "sets": told,
        "verdict": worst["verdict"],
        "sentence": f"label draw {worst['draw']}: {worst['sentence']}",
    }


def _tell(entry: AuditedSet) -> dict[str, Any]:
    audit = entry.audit
    return {
        "draw": entry.draw,
        "model_sha256": hash_file(entry.model),
        "images_sha256": hash_file(entry.images),
        "verdict": audit.verdict,
        "sentence": audit.sentence,
        "checks": [asdict(check) | {"outcome": check.outcome} for check in audit.checks],
        "attacks": {
            name: {measure: asdict(score) for measure, score in row.items()} for name, row in audit.attacks.items()
        },
        "counts": audit.counts,
    }

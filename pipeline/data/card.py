"""The card of a generator's synthetic sets, as `pipeline.training.audit` leaves it, and the gate that reads it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipeline import paths
from pipeline.artifacts import Json, read_json
from pipeline.config.privacy import Privacy

CARD, CARD_PAGE = "card.json", "card.html"
GUARANTEE = "privacy.json"
"""Beside models that were trained with differential privacy: what that guarantees."""
LIMITS = ("max_attack_auc", "max_copy_rate", "min_distance_ratio", "audit_images")


def limits(config: Privacy) -> dict[str, float]:
    """What an audit depends on: the section without its gate."""
    return {key: getattr(config, key) for key in LIMITS}


def card_metrics(card: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Value of every check by set, such as {"set 0": {"attack nearest pixels": 0.52}}; passed is 1 or 0."""
    return {
        f"set {entry['draw']}": {check["name"]: check["value"] for check in entry["checks"]}
        | {"passed": float(entry["verdict"] == "passed")}
        for entry in card["sets"]
    }


def read_card(kind: str) -> Json:
    """Raises ValueError with the remedy where there is none."""
    path = paths.synthetic(kind) / CARD
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `dvc repro augment@{kind}`, which audits the synthetic sets")
    return read_json(path)


def pass_gate(kinds: Collection[str], gate: str, warn: Callable[[str], None]) -> None:
    """Lets the synthetic sets of `kinds` through to training. With gate "block" raises ValueError for one whose audit
    was not passed, with "warn" says so.
    """
    for kind in kinds:
        known = (paths.synthetic(kind) / CARD).is_file()
        card = (
            read_card(kind) if known else {"verdict": "", "sentence": f"there is none, run `dvc repro augment@{kind}`"}
        )
        if card["verdict"] == "passed":
            continue
        told = f"the privacy audit of the {kind}'s synthetic sets: {card['sentence']}"
        if gate == "block":
            raise ValueError(f"{told}. privacy.gate blocks their use: mend that, or leave {kind} out of study.arms")
        warn(told)


def exportable(card: Mapping[str, Any], draw: int, config: Privacy) -> dict[str, Any]:
    """The card's entry of a set that may leave the house.

    Raises ValueError where there is no such set, its audit was not passed, or was against other limits.
    """
    kind, draws = card["generator"], [entry["draw"] for entry in card["sets"]]
    if draw not in draws:
        raise ValueError(f"the {kind} has no synthetic set of label draw {draw}: set --draw to one of {draws}")
    if card["limits"] != limits(config):
        raise ValueError(
            f"the {kind}'s sets were audited against other limits than section privacy of params.yaml has: run "
            f"`dvc repro augment@{kind}`"
        )
    entry: dict[str, Any] = card["sets"][draws.index(draw)]
    if entry["verdict"] != "passed":
        raise ValueError(f"the {kind}'s synthetic set of label draw {draw} is not exported: {entry['sentence']}")
    return entry

"""Which image goes where, and whose label an arm may see: stratified, and the same for equal seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.config.data import Data
from pipeline.data.arrays import UNLABELLED, Indices, Labels
from pipeline.data.prepared import Split
from pipeline.data.raw import RawImages
from pipeline.seeding import make_numpy_rng


@dataclass(frozen=True)
class SplitIndices:
    """Disjoint positions in the source, shuffled; `test` is empty where the source has a test set of its own."""

    train: Indices
    validation: Indices
    test: Indices


def split_images(raw: RawImages, data: Data, seed: int) -> tuple[Split, Split, Split]:
    """Train, validation and test. The source's own test set is kept as it is; otherwise `data.test_fraction` is cut."""
    cut = split_indices(
        raw.labels,
        class_names=raw.class_names,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction if raw.test_images is None else 0.0,
        seed=seed,
    )
    train, validation, test = (
        Split(raw.images[part], raw.labels[part]) for part in (cut.train, cut.validation, cut.test)
    )
    if raw.test_images is not None and raw.test_labels is not None:
        test = Split(raw.test_images, raw.test_labels)
    return train, validation, test


def split_indices(
    labels: Labels, *, class_names: Sequence[str], validation_fraction: float, test_fraction: float, seed: int
) -> SplitIndices:
    """Cuts each class by the same fractions, rounded, with at least one image of it in every split that is cut.

    Images without a label all go to train. test_fraction: 0 where no test split is wanted.
    Raises ValueError when a class has too few images.
    """
    parts: dict[str, list[Indices]] = {"train": [np.flatnonzero(labels == UNLABELLED)], "validation": [], "test": []}
    for label, name in enumerate(class_names):
        members = make_numpy_rng(seed, "split", label).permutation(np.flatnonzero(labels == label))
        num_validation = _share(len(members), validation_fraction)
        num_test = _share(len(members), test_fraction)
        if len(members) - num_validation - num_test < 1:
            splits = "train, validation and test" if test_fraction else "train and validation"
            raise ValueError(
                f"class {name!r} has {len(members)} labelled image(s), too few for {splits}, each of which needs one "
                "at least: add images of it, remove the class, or lower data.validation_fraction or data.test_fraction"
            )
        parts["validation"].append(members[:num_validation])
        parts["test"].append(members[num_validation : num_validation + num_test])
        parts["train"].append(members[num_validation + num_test :])
    shuffled = {
        name: make_numpy_rng(seed, "shuffle", name).permutation(np.concatenate(part)).astype(np.int64)
        for name, part in parts.items()
    }
    return SplitIndices(**shuffled)


def label_subsets(
    labels: Labels, *, class_names: Sequence[str], budgets: Sequence[int], draws: int, seed: int
) -> npt.NDArray[np.int64]:
    """(draws, largest budget) positions in `labels`; the first n of a row are that draw's subset for budget n.

    A row deals the classes out in rounds, one image of each class a round: every start of it holds equal counts per
    class, give or take one. A class with fewer images than its share gives all it has.
    Raises ValueError when a budget exceeds the labelled images or leaves a class without any.
    """
    num_labelled = int((labels != UNLABELLED).sum())
    if budgets[-1] > num_labelled:
        raise ValueError(
            f"data.label_budgets asks for {budgets[-1]} labels, the train split has {num_labelled} labelled images: "
            "lower it in params.yaml, or lower data.validation_fraction or data.test_fraction"
        )
    if budgets[0] < len(class_names):
        raise ValueError(
            f"data.label_budgets asks for {budgets[0]} labels of {len(class_names)} classes, each of which needs one "
            f"at least: raise it to {len(class_names)} or more in params.yaml"
        )
    return np.stack([_deal(labels, len(class_names), seed, draw)[: budgets[-1]] for draw in range(draws)])


def _deal(labels: Labels, num_classes: int, seed: int, draw: int) -> Indices:
    """All labelled positions, round by round; the order of classes within a round is the draw's own."""
    rng = make_numpy_rng(seed, "labels", draw)
    rank = rng.permutation(num_classes)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in range(num_classes)]
    positions = np.concatenate(members)
    rounds = np.concatenate([np.arange(len(group)) for group in members])
    ranks = np.concatenate([np.full(len(group), rank[label]) for label, group in enumerate(members)])
    return positions[np.lexsort((ranks, rounds))].astype(np.int64)


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction else 0

import numpy as np
import pytest

from pipeline.config.data import Data
from pipeline.data.arrays import UNLABELLED, Labels
from pipeline.data.raw import RawImages
from pipeline.data.splits import SplitIndices, label_subsets, split_images, split_indices
from pipeline.models import losses

NAMES = ["a", "b", "c"]
LABELS = np.repeat([0, 1, 2, UNLABELLED], [100, 40, 10, 25])


def cut(labels: Labels = LABELS, *, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> SplitIndices:
    return split_indices(labels, class_names=NAMES, validation_fraction=validation, test_fraction=test, seed=seed)


def subsets(labels: Labels, budgets: list[int], *, draws: int = 3, seed: int = 0) -> np.ndarray:
    return label_subsets(labels, class_names=NAMES, budgets=budgets, draws=draws, seed=seed)


def test_a_label_that_is_missing_is_spelled_alike_in_data_and_models() -> None:
    assert UNLABELLED == losses.UNLABELLED


def test_splits_are_disjoint_and_cover_everything() -> None:
    parts = cut()
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert np.array_equal(np.sort(together), np.arange(len(LABELS)))


def test_every_class_is_cut_by_the_same_fractions() -> None:
    parts = cut()
    assert [(LABELS[parts.validation] == label).sum() for label in range(3)] == [10, 4, 1]
    assert [(LABELS[parts.test] == label).sum() for label in range(3)] == [20, 8, 2]


def test_images_without_label_go_to_train_only() -> None:
    parts = cut()
    assert (LABELS[parts.train] == UNLABELLED).sum() == 25
    assert (LABELS[parts.validation] >= 0).all()
    assert (LABELS[parts.test] >= 0).all()


def test_splits_are_shuffled_and_depend_on_the_seed_alone() -> None:
    assert np.array_equal(cut().train, cut().train)
    assert not np.array_equal(cut().train, cut(seed=1).train)
    assert len(set(LABELS[cut().train][:30])) == 4  # the source is sorted by class


def test_a_rare_class_has_an_image_in_every_split() -> None:
    labels = np.repeat([0, 1, 2], [100, 100, 3])
    parts = cut(labels)
    assert [(labels[part] == 2).sum() for part in (parts.train, parts.validation, parts.test)] == [1, 1, 1]


def test_a_class_with_too_few_images_is_named() -> None:
    labels = np.repeat([0, 1, 2], [100, 100, 2])
    with pytest.raises(
        ValueError, match=r"class 'c' has 2 labelled image\(s\), too few for train, validation and test"
    ):
        cut(labels)
    parts = cut(labels, test=0.0)
    assert len(parts.test) == 0
    with pytest.raises(ValueError, match=r"class 'c' has 1 labelled image\(s\), too few for train and validation"):
        cut(labels[:-1], test=0.0)
    with pytest.raises(ValueError, match=r"class 'c' has 4 .*lower data\.validation_fraction or data\.test_fraction"):
        cut(np.repeat([0, 1, 2], [100, 100, 4]), validation=0.45, test=0.5)


def test_subsets_are_nested_stratified_and_labelled() -> None:
    labels = LABELS[cut().train]
    rows = subsets(labels, [3, 7, 20])
    assert rows.shape == (3, 20)
    for row in rows:
        assert len(set(row)) == 20
        for budget in range(3, 21):
            counts = np.bincount(labels[row[:budget]], minlength=3)
            assert counts.sum() == budget
            assert counts.max() - counts.min() <= 1


def test_a_class_that_is_used_up_gives_all_it_has() -> None:
    labels = np.repeat([0, 1, 2], [50, 50, 4])
    row = subsets(labels, [3, 40])[0]
    assert np.bincount(labels[row]).tolist() == [18, 18, 4]
    everything = subsets(labels, [3, 104])[0]
    assert np.array_equal(np.sort(everything), np.arange(104))


def test_draws_are_independent_of_their_number_and_differ() -> None:
    few, many = subsets(LABELS, [12], draws=2), subsets(LABELS, [12], draws=5)
    assert np.array_equal(few, many[:2])
    assert len({tuple(sorted(row)) for row in many}) == 5


def test_the_extra_image_of_an_uneven_budget_goes_to_every_class_in_turn() -> None:
    rows = subsets(LABELS, [4], draws=60)
    extra = [int(np.bincount(LABELS[row], minlength=3).argmax()) for row in rows]
    assert min(np.bincount(extra, minlength=3)) >= 10  # 20 each on average


def test_budgets_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.label_budgets asks for 151 labels, the train split has 150 labelled"):
        subsets(LABELS, [10, 151])
    with pytest.raises(ValueError, match=r"data\.label_budgets asks for 2 labels of 3 classes.*raise it to 3 or more"):
        subsets(LABELS, [2, 10])


@pytest.mark.parametrize("own_test", [True, False])
def test_a_test_set_of_the_source_is_kept_and_otherwise_cut(own_test: bool) -> None:
    images = np.arange(len(LABELS), dtype=np.uint8).reshape(-1, 1, 1, 1)
    held_images, held_labels = (images[:5], LABELS[:5]) if own_test else (None, None)
    raw = RawImages(images, LABELS, held_images, held_labels, class_names=NAMES, sha256="")
    data = Data(
        source="embedded",
        path="data",
        image_size=None,
        channels=None,
        validation_fraction=0.1,
        test_fraction=0.2,
        label_budgets=[10],
        label_draws=1,
    )
    train, validation, held_out = split_images(raw, data, 0)
    sizes = [len(split.labels) for split in (train, validation, held_out)]
    assert sizes == ([160, 15, 5] if own_test else [130, 15, 30])
    for split in (train, validation, held_out):
        assert np.array_equal(split.labels, LABELS[split.images[:, 0, 0, 0]])

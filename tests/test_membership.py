"""Attacks on sets whose answer is known: copies are found, strangers are not, and loops give the same scores."""

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.metrics.copies import distance_ratio, exact_copies, near_copies
from pipeline.metrics.membership import ATTACKS, Distances, calibrated_attack, nearest_attack, radius_attack
from pipeline.metrics.roc import area_under_curve

Floats = npt.NDArray[np.float64]


def normals(count: int, seed: int, num_features: int = 8) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, num_features))


def apart(a: Floats, b: Floats) -> float:
    return float(np.sqrt(np.square(a - b).sum()))


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_an_attack_finds_members_that_were_copied_and_guesses_about_strangers(attack: str) -> None:
    members, others = normals(100, 0), normals(100, 1)
    copied = np.concatenate([members, members]) + 0.2 * normals(200, 2)
    found = ATTACKS[attack](Distances.measure(members, others, copied))
    assert area_under_curve(found.members, found.others).value > 0.9
    areas = []
    for seed in range(20):
        strangers = ATTACKS[attack](Distances.measure(normals(100, 10 * seed), others, normals(200, 10 * seed + 2)))
        areas.append(area_under_curve(strangers.members, strangers.others).value)
    # The held out images are the same in all 20: their own luck, of deviation 0.03, remains.
    assert np.mean(areas) == pytest.approx(0.5, abs=0.08)


def test_scores_are_those_of_loops() -> None:
    members, others, made = normals(6, 0, 2), normals(6, 1, 2), normals(9, 2, 2)
    distances = Distances.measure(members, others, made)
    nearest = [min(apart(x, s) for s in made) for x in (*members, *others)]
    assert np.allclose(nearest_attack(distances).members, [-value for value in nearest[:6]])
    radius = np.median(nearest)
    counts = [sum(int(apart(x, s) <= radius + 1e-12) for s in made) for x in others]
    assert np.allclose(np.floor(radius_attack(distances).others), counts)
    real = [min(apart(x, others[n]) for n in range(6) if n % 2 != i % 2) for i, x in enumerate(members)]
    expected = np.log(np.array(real) + 1e-6) - np.log(np.array(nearest[:6]) + 1e-6)
    assert np.allclose(calibrated_attack(distances).members, expected)
    real = [min(apart(x, others[n]) for n in range(6) if n % 2 != i % 2) for i, x in enumerate(others)]
    expected = np.log(np.array(real) + 1e-6) - np.log(np.array(nearest[6:]) + 1e-6)
    assert np.allclose(calibrated_attack(distances).others, expected)


def test_exact_copies_are_counted_byte_for_byte() -> None:
    train = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)
    made = np.concatenate([train[:3], 255 - train[:9]])
    assert exact_copies(made, train).value == 3 / 12


def test_near_copies_are_noisy_training_rows_and_not_their_means() -> None:
    train = normals(200, 0, 30)
    noisy, blurred = train[:10] + 0.05 * normals(10, 1, 30), (train[:50] + train[50:100]) / 2
    assert near_copies(noisy, train).value == 1
    assert near_copies(blurred, train).value == 0
    assert near_copies(normals(300, 2, 30), train).value == 0
    distance = np.sort([apart(noisy[0] * 4, row) for row in train])[:50]
    assert near_copies(noisy[:1] * 4, train).value == float(distance[0] < 0.5 * distance.mean())


def test_distance_ratio_is_near_one_for_strangers_and_covers_it() -> None:
    found = [
        distance_ratio(normals(80, 3 * s), normals(60, 3 * s + 1), normals(60, 3 * s + 2), np.random.default_rng(s))
        for s in range(60)
    ]
    assert np.mean([score.value for score in found]) == pytest.approx(1, abs=0.01)
    assert np.mean([score.low <= 1 <= score.high for score in found]) > 0.85


def test_distance_ratio_of_copies_is_low_and_of_equal_sets_a_loop() -> None:
    train, holdout, rng = normals(40, 0), normals(40, 1), np.random.default_rng(0)
    assert distance_ratio(train + 0.01 * normals(40, 2), train, holdout, rng).high < 0.1
    made = normals(25, 3)
    near = [np.mean([min(apart(s, x) for x in rows) for s in made]) for rows in (train, holdout)]
    assert distance_ratio(made, train, holdout, rng).value == pytest.approx(near[0] / near[1])
    with pytest.raises(ValueError, match="equally many reference images"):
        distance_ratio(made, train, holdout[:30], rng)

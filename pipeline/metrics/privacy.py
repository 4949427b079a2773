"""The privacy audit of a synthetic set: copies, distances and membership attacks, against limits, after a control."""

# N images to be judged of either kind, M synthetic images, P pixels, F features

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.config.privacy import Privacy
from pipeline.data.arrays import Images, Indices
from pipeline.metrics.copies import distance_ratio, exact_copies, near_copies
from pipeline.metrics.generative import NUM_COMPONENTS, as_rows, pca_features
from pipeline.metrics.membership import ATTACKS, Distances, Scored
from pipeline.metrics.roc import area_under_curve, rate_at_false_alarms
from pipeline.metrics.score import Score, score_difference

FALSE_ALARMS = (0.01, 0.1)
MIN_IMAGES = 100
"""With fewer training, held out or synthetic images nothing is concluded."""
CONTROL_NOISE = 0.1
"""Deviation of the noise on the training images of the control, in units of the pixel range."""
CONTROL_AUC = 0.9
"""An attack that stays below this on copies is broken."""


@dataclass(frozen=True)
class Check:
    """A number with its limit.  low, high: 95 % interval.  at_most: whether the limit is an upper one.
    key: of params.yaml, the limit's."""

    name: str
    value: float
    low: float
    high: float
    limit: float
    at_most: bool
    key: str

    @property
    def outcome(self) -> str:
        """within: the whole interval respects the limit; beyond: the whole interval breaks it; open: it holds both."""
        good, bad = (self.high, self.low) if self.at_most else (-self.low, -self.high)
        limit = self.limit if self.at_most else -self.limit
        return "within" if good <= limit else "beyond" if bad > limit else "open"


@dataclass(frozen=True)
class Audit:
    """verdict: passed, failed, inconclusive or broken (an attack missed the control).

    checks: what was judged.  attacks: by name and measure, auc and tpr_at_1, tpr_at_10 (per cent of false alarms).
    floors: exact and near copies among the images held out, which nobody copied.  control: each attack's AUC, and the
    near copies, on noisy training images.  counts: images, by role.
    """

    verdict: str
    sentence: str
    checks: list[Check]
    attacks: dict[str, dict[str, Score]]
    floors: dict[str, Score]
    control: dict[str, float]
    counts: dict[str, int]


def draw_candidates(num_train: int, num_holdout: int, at_most: int, seed: int) -> tuple[Indices, Indices]:
    """Positions of equally many training and held out images to attack, in random order."""
    rng = np.random.default_rng(seed)
    count = min(num_train, num_holdout, at_most)
    return rng.permutation(num_train)[:count], rng.permutation(num_holdout)[:count]


@dataclass(frozen=True)
class Yardstick:
    """What the sets of one generator are audited with.  train: every training image.  members, others: (N, C, H, W),
    those to be attacked, trained on and held out.  floors, control: see Audit.
    """

    train: Images
    members: Images
    others: Images
    floors: dict[str, Score]
    control: dict[str, float]


def make_yardstick(train: Images, members: Images, others: Images, num_synthetic: int, *, seed: int) -> Yardstick:
    """Runs the control: black-box attacks and near copies where the synthetic set is the members under noise."""
    rng = np.random.default_rng(seed)
    train_rows = as_rows(train)
    copied = members[:num_synthetic]
    images = copied[np.arange(num_synthetic) % len(copied)]
    noisy = (images + rng.normal(0, 255 * CONTROL_NOISE, images.shape)).round().clip(0, 255).astype(np.uint8)
    scored = black_box_attacks(copied, others[: len(copied)], noisy, seed)
    control = {name: area_under_curve(scores.members, scores.others).value for name, scores in scored.items()}
    control["near copies"] = near_copies(as_rows(noisy), train_rows).value
    floors = {"exact copies": exact_copies(others, train), "near copies": near_copies(as_rows(others), train_rows)}
    return Yardstick(train, members, others, floors, control)


def audit_privacy(
    yardstick: Yardstick, synthetic: Images, model_scores: Mapping[str, Scored], *, config: Privacy, seed: int
) -> Audit:
    """Attacks a synthetic set (M, C, H, W), and the model where model_scores has what its owner could compute.

    Every training image counts for copies.  Raises ValueError for fewer than 20 images of a kind.
    """
    rng = np.random.default_rng(seed)
    train, members, others = yardstick.train, yardstick.members, yardstick.others
    counts = {"members": len(members), "others": len(others), "synthetic": len(synthetic), "train": len(train)}
    scored = {**black_box_attacks(members, others, synthetic, seed), **model_scores}
    attacks = {name: _measure(scores, rng) for name, scores in scored.items()}
    rows = as_rows(synthetic)
    near = near_copies(rows, as_rows(train))
    copies = {
        "exact copies": exact_copies(synthetic, train),
        "near copies beyond chance": score_difference(near, yardstick.floors["near copies"]),
    }
    ratio = distance_ratio(rows, as_rows(members), as_rows(others), rng)
    top, rate, least = (f"privacy.{key}" for key in ("max_attack_auc", "max_copy_rate", "min_distance_ratio"))
    checks = [
        *(_check(f"attack {name}", row["auc"], config.max_attack_auc, top) for name, row in attacks.items()),
        *(_check(name, score, config.max_copy_rate, rate) for name, score in copies.items()),
        _check("distance ratio", ratio, config.min_distance_ratio, least, at_most=False),
    ]
    verdict, sentence = _judge(checks, yardstick.control, counts)
    return Audit(verdict, sentence, checks, attacks, yardstick.floors, yardstick.control, counts)


def black_box_attacks(members: Images, others: Images, synthetic: Images, seed: int) -> dict[str, Scored]:
    """Scores by attack and space, such as "nearest pixels"."""
    sets = [members, others, synthetic]
    components = min(NUM_COMPONENTS, len(members) // 2)
    features = pca_features(np.concatenate(sets[:2]), sets, num_components=components, seed=seed)
    found: dict[str, Scored] = {}
    for space, rows in (("pixels", [as_rows(images) for images in sets]), ("components", features)):
        distances = Distances.measure(*rows)
        found |= {f"{name} {space}": attack(distances) for name, attack in ATTACKS.items()}
    return found


def _measure(scores: Scored, rng: np.random.Generator) -> dict[str, Score]:
    rates = {
        f"tpr_at_{round(100 * share)}": rate_at_false_alarms(scores.members, scores.others, share, rng)
        for share in FALSE_ALARMS
    }
    return {"auc": area_under_curve(scores.members, scores.others), **rates}


def _check(name: str, score: Score, limit: float, key: str, *, at_most: bool = True) -> Check:
    return Check(name, score.value, score.low, score.high, limit, at_most, key)


def _judge(checks: list[Check], control: Mapping[str, float], counts: Mapping[str, int]) -> tuple[str, str]:
    """Verdict and sentence. Never "passed" where an interval reaches beyond a limit or an attack is blind."""
    few = {role: count for role, count in counts.items() if count < MIN_IMAGES}
    beyond = [check for check in checks if check.outcome == "beyond"]
    undecided = [check for check in checks if check.outcome == "open"]
    missed = {name: value for name, value in control.items() if value < CONTROL_AUC}
    if beyond:
        return "failed", f"failed: {_say(beyond)}; train the generator for fewer steps, or privately (section dp)"
    if few:
        told = ", ".join(f"{count} {role}" for role, count in few.items())
        return "inconclusive", f"nothing can be concluded from {told}: at least {MIN_IMAGES} of each are needed"
    if missed:
        told = ", ".join(f"{name} {value:.2f}" for name, value in missed.items())
        return "broken", f"broken: on noisy training images these should reach {CONTROL_AUC}: {told}"
    if undecided:
        remedy = "more images (data.validation_fraction, augment.images_per_class, privacy.audit_images) narrow it"
        return "inconclusive", f"nothing can be concluded: {_say(undecided)}; {remedy}"
    worst = max((check for check in checks if check.name.startswith("attack")), key=lambda check: check.value)
    return "passed", f"passed: {_say([worst])} is the best of the attacks, and no other number breaks its limit"


def _say(checks: list[Check]) -> str:
    return ", ".join(
        f"{check.name} {check.value:.3g} [{check.low:.3g}, {check.high:.3g}] "
        f"(limit {check.key}: {'at most' if check.at_most else 'at least'} {check.limit:g})"
        for check in checks
    )

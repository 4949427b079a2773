"""Section `tune`: what is swept, over which space, by which searcher and scheduler."""

import difflib
from dataclasses import dataclass
from typing import Any

from pipeline.config.classifier import ARMS, GENERATORS, TUNABLE
from pipeline.config.rules import require, require_at_least, require_choice
from pipeline.config.space import Distribution, Grid, Listed, check_start, parse_space

CLASSIFIER = "classifier"
LAYER_PREFIX = "pretrain@"
SEARCHERS = ("random", "grid", "tpe")
SCHEDULERS = ("none", "asha", "hyperband", "bohb", "pbt")
PAUSING = ("hyperband", "bohb", "pbt")
"""Schedulers that pause trials and let them go on from checkpoints, which needs Ray."""
SEARCHERS_OF = {"hyperband": ("random", "grid"), "bohb": ("tpe",), "pbt": ("random",)}
"""What each of them can be combined with; all searchers where it isn't named."""
MIN_POPULATION = 2


@dataclass(frozen=True, kw_only=True)
class Tune:
    target: str
    """What is swept: classifier (its sweep feeds the study), vae, gan, or a layer of the DBN such as pretrain@conv1."""
    searcher: str
    """Where trials come from: random, grid (every combination of listed values once), or tpe (Optuna)."""
    scheduler: str
    """Who stops or changes them: none, asha, hyperband, bohb (HyperBand whose trials are drawn by a TPE that learns
    from its rungs), or pbt (losers go on from winners' weights with changed values)."""
    arms: list[str]
    """Arms that get a sweep of their own, with equal budgets; every other arm uses that of its kind of network."""
    budget: int
    """Labels a classifier's trial trains on, one of data.label_budgets."""
    num_trials: int
    """Trials of a sweep (of each arm), >= 1; the size of the population of pbt."""
    steps: int
    """Updates of a classifier's trial that is not stopped early, >= 1; other targets take their section's steps."""
    reports: int
    """How often a trial reports to the scheduler, >= 1; pbt changes values at each but the last."""
    reduction_factor: int
    """asha, hyperband and bohb keep the best 1/reduction_factor at each rung, >= 2."""
    max_concurrent: int
    """Trials side by side, >= 1. With 1 a sweep is the same bit for bit; with more asha and tpe depend on timing."""
    batch_size: int
    """Of a classifier's trial, >= 1."""
    start: dict[str, float]
    """The first trial of every classifier's sweep: lr, weight_decay and dropout."""
    space: dict[str, dict[str, Any]]
    """Per tuned value of a classifier: {type: uniform | loguniform | quniform | randint | lograndint | choice | grid,
    low, high | low, high, q | values}; the ends of a range are included."""
    spaces: dict[str, Any]
    """The same for other targets: target -> key of its section -> distribution. Their first trial has the section's own
    values, where the space holds them."""

    def __post_init__(self) -> None:
        require_at_least("number of tune.arms", len(self.arms), 1)
        for arm in self.arms:
            require_choice("tune.arms", arm, ARMS)
            require(arm not in GENERATORS, "tune.arms", arm, "an arm without generator (vae and gan use scratch's)")
        for key in ("budget", "num_trials", "steps", "reports", "max_concurrent", "batch_size"):
            require_at_least(f"tune.{key}", getattr(self, key), 1)
        require_at_least("tune.reduction_factor", self.reduction_factor, 2)
        require(self.reports <= self.steps, "tune.reports", self.reports, "<= tune.steps")
        require(sorted(self.start) == sorted(TUNABLE), "keys of tune.start", sorted(self.start), f"exactly {TUNABLE}")
        require_choice("tune.searcher", self.searcher, SEARCHERS)
        require_choice("tune.scheduler", self.scheduler, SCHEDULERS)
        self._check_scheduler()
        require_at_least("number of keys of tune.space", len(self.space), 1)
        for name in self.space:
            require_choice("a key of tune.space", name, TUNABLE)
        check_start(self.start, self.distributions)
        if self.target == CLASSIFIER:
            check_searched("tune.space", self.distributions, self)

    @property
    def distributions(self) -> dict[str, Distribution]:
        """`space`, typed."""
        return parse_space(self.space)

    def _check_scheduler(self) -> None:
        allowed = SEARCHERS_OF.get(self.scheduler, SEARCHERS)
        rule = f"{' or '.join(allowed)} with tune.scheduler {self.scheduler}"
        require(self.searcher in allowed, "tune.searcher", self.searcher, rule)
        if self.scheduler in PAUSING:
            rule = f">= 2 with tune.scheduler {self.scheduler}, which looks at trials before they end"
            require(self.reports >= 2, "tune.reports", self.reports, rule)
        if self.scheduler == "pbt":
            rule = f">= {MIN_POPULATION} with tune.scheduler pbt: the losers of a population go on from its winners"
            require(self.num_trials >= MIN_POPULATION, "tune.num_trials", self.num_trials, rule)


def check_searched(key: str, space: dict[str, Distribution], tune: Tune) -> None:
    """Whether the searcher can go through the space. Raises ValueError."""
    for name, distribution in space.items():
        kind = type(distribution).__name__.lower()
        if tune.searcher == "grid":
            require(isinstance(distribution, Listed), f"{key}.{name}.type", kind, "grid or choice with searcher grid")
        else:
            rule = f"choice or a range with tune.searcher {tune.searcher}; only searcher grid goes through a grid"
            require(not isinstance(distribution, Grid), f"{key}.{name}.type", kind, rule)
    if tune.searcher == "grid":
        size = grid_size(space)
        rule = f">= {size}, the combinations of {key}, with tune.searcher grid"
        require(tune.num_trials >= size, "tune.num_trials", tune.num_trials, rule)


def grid_size(space: dict[str, Distribution]) -> int:
    """Combinations of the listed values."""
    size = 1
    for distribution in space.values():
        assert isinstance(distribution, Listed)
        size *= len(distribution.values)
    return size


def require_known(name: str, known: list[str], what: str) -> None:
    """Raises ValueError with the nearest name where `name` is not among the known ones."""
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {what} in params.yaml: {name!r}; {remedy}")

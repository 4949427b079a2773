"""Ray's searchers and schedulers for a sweep, explicit about every default that matters."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config.space import Distribution, Listed, LogRandInt, LogUniform, QUniform, RandInt
from pipeline.tuning.sweep import SweepPlan

GRACE_PERIOD = 1
"""Reports before a trial can be stopped."""
REPORTS = "reports"
"""How many reports a trial has behind it, in what it tells Tune: after a pause Tune's own count may start anew."""
FAILED = "failed"
"""1 where a trial tells of its exception, otherwise 0."""
PENDING = "TUNE_MAX_PENDING_TRIALS_PG"


def make_searcher(plan: SweepPlan) -> Any:
    """A searcher whose first trial is `plan.start`, and whose next ones depend on the plan and the results alone."""
    from ray.tune.search.optuna import OptunaSearch

    from pipeline.launch.ray_searchers import ListedSearch, RungSearch

    if plan.searcher != "tpe":
        return ListedSearch(plan.points(), plan.metric)
    if plan.scheduler == "bohb":
        return RungSearch(plan, optuna_space(plan))
    return OptunaSearch(
        optuna_space(plan),
        metric=plan.metric,
        mode="min",
        points_to_evaluate=plan.first_point or None,
        sampler=make_sampler(plan.seed, max(1, min(10, plan.num_trials // 2))),
    )


def make_sampler(seed: int, num_random: int, *, multivariate: bool = False) -> Any:
    """Optuna's TPE after `num_random` random trials."""
    import optuna

    # optuna 5 turned on the multivariate model and the constant liar; neither is meant for a handful of trials.
    return optuna.samplers.TPESampler(
        seed=seed % 2**32,
        n_startup_trials=num_random,
        multivariate=multivariate,
        group=False,
        constant_liar=False,
    )


def optuna_space(plan: SweepPlan) -> dict[str, Any]:
    return {name: _distribution(distribution) for name, distribution in sorted(plan.space.items())}


def make_scheduler(plan: SweepPlan) -> Any:
    from ray.tune import schedulers

    common = {"metric": plan.metric, "mode": "min"}
    if plan.scheduler == "none":
        return schedulers.FIFOScheduler()
    if plan.scheduler == "asha":
        return schedulers.ASHAScheduler(
            time_attr="training_iteration",
            **common,
            max_t=plan.num_reports,
            grace_period=min(GRACE_PERIOD, plan.num_reports),
            reduction_factor=plan.reduction_factor,
        )
    if plan.scheduler == "pbt":
        from pipeline.launch.ray_pbt import SeededPopulation

        return SeededPopulation(plan, REPORTS)
    kind = schedulers.HyperBandForBOHB if plan.scheduler == "bohb" else schedulers.HyperBandScheduler
    return kind(time_attr=REPORTS, **common, max_t=plan.num_reports, reduction_factor=plan.reduction_factor)


@contextmanager
def all_trials_pending(plan: SweepPlan) -> Iterator[None]:
    """HyperBand halves the trials that it knows of: Tune must tell it of all of them before the first one runs."""
    before = os.environ.get(PENDING)
    if plan.scheduler == "hyperband":
        os.environ[PENDING] = str(plan.num_trials)
    try:
        yield
    finally:
        if plan.scheduler == "hyperband":
            os.environ.pop(PENDING)
            if before is not None:
                os.environ[PENDING] = before


def _distribution(distribution: Distribution) -> Any:
    from optuna import distributions

    if isinstance(distribution, Listed):
        return distributions.CategoricalDistribution(distribution.values)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, RandInt | LogRandInt):
        return distributions.IntDistribution(int(low), int(high), log=isinstance(distribution, LogRandInt))
    if isinstance(distribution, QUniform):
        return distributions.FloatDistribution(low, high, step=distribution.q)
    return distributions.FloatDistribution(low, high, log=isinstance(distribution, LogUniform))


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Neither Tune nor Optuna speaks inside the block: what matters of a sweep is told by its stage."""
    import optuna

    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    verbosity = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

"""Ray's searcher (Optuna's TPE) and scheduler (ASHA) for a sweep, explicit about every default that matters."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config.space import Choice, Distribution, LogUniform
from pipeline.tuning.sweep import METRIC, SweepPlan

GRACE_PERIOD = 1
"""Reports before a trial can be stopped."""


def make_searcher(plan: SweepPlan) -> Any:
    """OptunaSearch whose first trial is `plan.start`, and whose next ones depend on the plan and the results alone."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    # optuna 5 turned on the multivariate model and the constant liar; neither is meant for a handful of trials.
    sampler = optuna.samplers.TPESampler(
        seed=plan.seed % 2**32,
        n_startup_trials=max(1, min(10, plan.num_trials // 2)),
        multivariate=False,
        group=False,
        constant_liar=False,
    )
    return OptunaSearch(
        {name: _distribution(distribution) for name, distribution in sorted(plan.space.items())},
        metric=METRIC,
        mode="min",
        points_to_evaluate=[{name: plan.start[name] for name in sorted(plan.space)}],
        sampler=sampler,
    )


def make_scheduler(plan: SweepPlan) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr="training_iteration",
        metric=METRIC,
        mode="min",
        max_t=plan.num_reports,
        grace_period=min(GRACE_PERIOD, plan.num_reports),
        reduction_factor=plan.reduction_factor,
    )


def _distribution(distribution: Distribution) -> Any:
    import optuna

    if isinstance(distribution, Choice):
        return optuna.distributions.CategoricalDistribution(distribution.values)
    log = isinstance(distribution, LogUniform)
    return optuna.distributions.FloatDistribution(distribution.low, distribution.high, log=log)


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

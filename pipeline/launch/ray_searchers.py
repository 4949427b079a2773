"""Searchers that Ray lacks: a fixed list of trials, and a TPE that learns from the rungs of a HyperBand.

Imports ray when it is imported, so it is imported only where Ray's settings are in the environment.
"""

from typing import Any

from ray.tune.search import Searcher

from pipeline.launch.ray_search import FAILED, REPORTS, make_sampler
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import SweepPlan


class ListedSearch(Searcher):
    """Suggests the given points in their order, whatever the results."""

    def __init__(self, points: list[Values], metric: str) -> None:
        super().__init__(metric=metric, mode="min")
        self._points = list(points)

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        return self._points.pop(0) if self._points else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learns nothing."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learns nothing."""


class RungSearch(Searcher):
    """What BOHB does with its model (Falkner et al. 2018, sec. 4), with Optuna's multivariate TPE for the model.

    A suggestion comes from the results at the most reports that enough trials have reached: one more than there are
    searched values. Before that it is random. Depends on nothing but the plan and the results so far.
    """

    def __init__(self, plan: SweepPlan, space: dict[str, Any]) -> None:
        super().__init__(metric=plan.metric, mode="min")
        self._plan, self._space = plan, space
        self._values: dict[str, Values] = {}
        self._results: dict[int, dict[str, float]] = {}
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self._running) >= self._plan.max_concurrent:
            return None
        self._running.add(trial_id)
        first = self._plan.first_point
        self._values[trial_id] = first[0] if first and not self._values else self._draw()
        return dict(self._values[trial_id])

    def _draw(self) -> Values:
        import optuna

        enough = len(self._space) + 1
        rungs = [rung for rung, results in self._results.items() if len(results) >= enough]
        sampler = make_sampler(self._plan.seed + len(self._values), enough, multivariate=True)
        study = optuna.create_study(sampler=sampler)
        for trial_id, value in (self._results[max(rungs)] if rungs else {}).items():
            params = self._values[trial_id]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=self._space, value=value))
        return dict(study.ask(self._space).params)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if not result[FAILED]:
            self._results.setdefault(result[REPORTS], {})[trial_id] = result[self._plan.metric]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)
        if result is not None and not error:
            self.on_trial_result(trial_id, result)

    def on_pause(self, trial_id: str) -> None:
        """HyperBandForBOHB calls this: a paused trial makes room for a new one."""
        self._running.discard(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """HyperBandForBOHB calls this as a paused trial goes on."""
        self._running.add(trial_id)

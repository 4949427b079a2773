"""Population Based Training (Jaderberg et al. 2017) by Ray; its decisions depend on the plan and the results alone.

Imports ray when it is imported, so it is imported only where Ray's settings are in the environment.
"""

import random
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from pipeline.seeding import derive_seed, make_numpy_rng
from pipeline.tuning.points import explore
from pipeline.tuning.sweep import SweepPlan

QUANTILE = 0.25
"""Share of the population that is replaced, and share that replaces it, at each report."""


class SeededPopulation(PopulationBasedTraining):
    """Waits at every report until the whole population is there; then losers take over winners' checkpoints.

    Ray draws donors and changes from Python's global generators; here both come from the plan's seed.
    """

    def __init__(self, plan: SweepPlan, time_attr: str) -> None:
        super().__init__(
            time_attr=time_attr,
            metric=plan.metric,
            mode="min",
            perturbation_interval=1,
            hyperparam_mutations={name: tune.uniform(0, 1) for name in plan.space},  # names only: see _get_new_config
            quantile_fraction=QUANTILE,
            synch=True,
            log_config=False,
        )
        self._plan = plan
        self._round = 0

    def _checkpoint_or_exploit(self, trial: Any, tune_controller: Any, upper: list[Any], lower: list[Any]) -> None:
        self._round += 1
        before = random.getstate()
        random.seed(derive_seed(self._plan.seed, "donor", self._round))
        try:
            super()._checkpoint_or_exploit(trial, tune_controller, upper, lower)
        finally:
            random.setstate(before)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG002
        rng = make_numpy_rng(self._plan.seed, "explore", self._round)
        return explore(trial_to_clone.config, self._plan.space, rng), {}

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, trial, result)
        self._go_on_without(trial, tune_controller)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial not in self._trial_state:  # otherwise its process died, and it goes on where it was
            super().on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_error(tune_controller, trial)
        if not trial.should_recover():
            self._go_on_without(trial, tune_controller)

    def _go_on_without(self, gone: Any, tune_controller: Any) -> None:
        """A trial that fails as the last one to be waited for must not leave the others waiting for ever."""
        state = self._trial_state[gone]
        state.last_train_time, state.last_score = self._next_perturbation_sync, None
        waiting = [trial for trial in tune_controller.get_live_trials() if trial is not gone]
        times = [self._trial_state[trial].last_train_time for trial in waiting]
        if waiting and min(times) >= self._next_perturbation_sync:
            last = waiting[-1]
            self.on_trial_result(tune_controller, last, self._trial_state[last].last_result)

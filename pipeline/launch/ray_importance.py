"""How much of a sweep's variance each searched value explains: functional ANOVA (Hutter et al. 2014), by Optuna."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.launch.ray_search import optuna_space, quiet_tune
from pipeline.tuning.sweep import SweepPlan, SweptTrial

FEW_TRIALS = 10
"""Below this many trials the shares are mostly noise."""


@dataclass(frozen=True)
class Importance:
    """shares: of the variance, by name, the largest first; they add up to 1.  report: at whose values they were
    computed, from 1.  trials: how many had got that far.  warning: what to think of it, or empty."""

    shares: dict[str, float]
    report: int
    trials: int
    warning: str


def compute_importance(trials: Sequence[SweptTrial], plan: SweepPlan) -> Importance:
    """From the values at the last report that at least half of the trials reached: later ones compare fewer trials.

    No shares where there is nothing to compare. A population changes its values on the way; those of the report count.
    """
    import optuna

    reached = sorted((len(trial.curve) for trial in trials if trial.curve), reverse=True)
    report = reached[(len(trials) + 1) // 2 - 1] if len(reached) >= (len(trials) + 1) // 2 else 0
    compared = [trial for trial in trials if len(trial.curve) >= report] if report else []
    with quiet_tune():
        study, space = optuna.create_study(), optuna_space(plan)
        for trial in compared:
            values = trial.path[report - 1] if trial.path else trial.values
            params = {name: values[name] for name in space}
            value = trial.curve[report - 1][plan.metric]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
        if len({trial.value for trial in study.trials}) < 2:
            return Importance({}, report, len(compared), "too few different results to compare")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=plan.seed % 2**32)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    warning = f"{len(compared)} trials, fewer than {FEW_TRIALS}: mostly noise" if len(compared) < FEW_TRIALS else ""
    return Importance({name: float(share) for name, share in shares.items()}, report, len(compared), warning)

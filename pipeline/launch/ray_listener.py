"""What Tune tells of its trials in the driver, passed on to the sweep's recorder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.tuning.points import Values
from pipeline.tuning.sweep import Recorder

MAX_RETRIES = 2
"""How often a trial whose process died is tried again; its exceptions are reports, and are not retried."""

Hear = Callable[[int, Any, dict[str, Any]], None]


def make_listener(recorder: Recorder, start: Values, hear: Hear) -> Any:
    """A Tune callback that calls hear(number, trial, result) with every report; numbers are in order of creation."""
    import ray
    from ray import tune

    numbers: dict[str, int] = {}

    def number_of(trials: list[Any], trial: Any) -> int:
        """Tune moves a trial whose process died to the end of its list, so places in the list are no numbers."""
        for known in trials:
            numbers.setdefault(known.trial_id, len(numbers))
        return numbers[trial.trial_id]

    class Listener(tune.Callback):
        def on_trial_start(self, *, trials: list[Any], trial: Any, **_: Any) -> None:
            recorder.begin(number_of(trials, trial), {**start, **trial.config})

        def on_trial_result(self, *, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
            hear(number_of(trials, trial), trial, result)

        def on_trial_error(self, *, trials: list[Any], trial: Any, **_: Any) -> None:
            failed = recorder.begin(number_of(trials, trial), {**start, **trial.config})
            error = _error_of(trial)
            failed.failure = _reason(error)
            # Without an error, or with that of an actor, and not for the last time: Tune retries only what was running.
            died = error is None or isinstance(error, ray.exceptions.RayActorError)
            failed.lost = died and trial.num_failures <= MAX_RETRIES

    return Listener()


def _error_of(trial: Any) -> Exception | None:
    """From the driver's own folder: `trial.get_pickled_error()` reads a copy that may not be there yet."""
    from ray import cloudpickle

    if trial.pickled_error_file is not None and Path(trial.pickled_error_file).is_file():
        with Path(trial.pickled_error_file).open("rb") as file:
            error: Exception = cloudpickle.load(file)
        return error
    if trial.error_file is not None and Path(trial.error_file).is_file():
        return RuntimeError(Path(trial.error_file).read_text())
    return None


def _reason(error: Exception | None) -> str:
    """Exceptions of the trial itself arrive as reports: what is left is the death of its process, or Ray's own."""
    import ray

    if isinstance(error, ray.exceptions.RayActorError):
        return f"its process died {MAX_RETRIES + 1} times; it may need more memory than there is"
    return "its process could not start" if error is None else str(error).strip()

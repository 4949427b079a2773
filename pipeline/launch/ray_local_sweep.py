"""Ray's searcher and scheduler driven in this process, trial after trial: no Ray is started.

Gives the sweep that Tune gives with one trial at a time (tests/test_tuning.py).
"""

import sys
import time
from contextlib import suppress
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from pipeline.launch.local import limit_threads
from pipeline.launch.ray_search import make_scheduler, make_searcher, quiet_tune
from pipeline.launch.ray_session import ray_environment
from pipeline.tuning.sweep import Message, Recorder, SweepFunction, SweepPlan, SweptTrial, replay
from pipeline.tuning.sweep_log import trial_key


class LocalSweeper:
    """See `Sweeper`. `max_concurrent` has no effect here: one trial runs at a time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        return

    def sweep(self, plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder) -> list[SweptTrial]:
        if plan.pauses:
            rule = "pauses trials, which needs run.launch ray in params.yaml"
            raise ValueError(f"tune.scheduler {plan.scheduler} {rule}")
        if plan.max_concurrent > 1:
            print("tune.max_concurrent has no effect with run.launch local: trials run one by one", file=sys.stderr)
        with ray_environment(), quiet_tune(), limit_threads(plan.threads):
            searcher, scheduler = make_searcher(plan), make_scheduler(plan)
            known = recorder.known_curves()
            for number in range(plan.num_trials):
                judge = _Judge(str(number), searcher, scheduler)
                trial = recorder.begin(number, {**plan.start, **judge.suggested})
                curve = known.get(trial_key(trial.values), [])
                with suppress(_Stopped):
                    replay(function, trial.values, shared, curve, plan, partial(judge.hear, recorder, trial))
                judge.complete()
        return list(recorder.trials.values())


class _Stopped(BaseException):
    """Ends a trial that ASHA gave up; not an Exception, so that nothing on the way takes it for a failure."""


class _Judge:
    """Does for one trial what Tune's controller does: asks, tells, and stops it when the scheduler says so."""

    def __init__(self, name: str, searcher: Any, scheduler: Any) -> None:
        self._name, self._searcher, self._scheduler = name, searcher, scheduler
        self._trial = SimpleNamespace(trial_id=name)
        self._result: dict[str, Any] = {"training_iteration": 0}
        self._heard = time.perf_counter()
        self.suggested: dict[str, float] = searcher.suggest(name)
        scheduler.on_trial_add(None, self._trial)

    def hear(self, recorder: Recorder, trial: SweptTrial, message: Message) -> None:
        position = self._result["training_iteration"]
        self._result = {**message, "training_iteration": position + 1}
        now = time.perf_counter()
        recorder.add(trial, position, message, now - self._heard)
        self._heard = now
        if self._scheduler.on_trial_result(None, self._trial, self._result) == "STOP":
            raise _Stopped
        self._searcher.on_trial_result(self._name, self._result)

    def complete(self) -> None:
        self._scheduler.on_trial_complete(None, self._trial, self._result)
        self._searcher.on_trial_complete(self._name, self._result)

"""One fit on several workers, through Ray Train: a killed worker or node is replaced and the fit goes on where it was.

Each worker calls the same function with the same arguments; `pipeline.training.fit` finds the others (see
pipeline/training/workers.py). Checkpoints travel through run.storage, so that a worker may come back on another node.
"""

import copy
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.config.run import Run
from pipeline.launch.launcher import USER_ERRORS, Failure, Item, OnEpoch, Result, Shared, describe, measure_bytes
from pipeline.launch.ray_launcher import explain_death
from pipeline.launch.ray_mailbox import new_mailbox
from pipeline.launch.ray_room import wait_for_room
from pipeline.launch.ray_session import open_ray
from pipeline.launch.ray_team import trial_bundles
from pipeline.training.workers import Host, current_shard, hosted

MAX_RETRIES = 3
"""How often a fit that lost a worker or a node goes on from its last checkpoint."""
CHECKPOINT = "fit.ckpt"
KEPT = 2
"""Checkpoints in storage: one that is complete while the next is written."""
POLL_S = 1.0
"""How often rank 0's words are fetched: each look takes time from the workers."""


class WorkersLauncher:
    """See `Launcher`. Each trial is trained by run.workers processes; run.trials_at_once trials run side by side.

    name: what all fits of this block are for; with an item it names the folder in run.storage, and a fit that finds its
    folder there goes on from it.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._settings, self._name = run, name
        self._session = ExitStack()
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._session.close()

    def map_trials(
        self,
        function: Callable[[Item, Shared], Result],
        items: Sequence[Item],
        shared: Shared,
        *,
        on_result: Callable[[Item, Result], None] | None = None,
    ) -> list[Result | Failure]:
        if not items:
            return []
        self._start(shared, min(self._settings.trials_at_once, len(items)))
        import ray

        reference = ray.put(shared)
        with ThreadPoolExecutor(self._settings.trials_at_once) as pool:
            futures = {pool.submit(self._fit, function, item, reference, new_mailbox()): item for item in items}
            for future in as_completed(futures):  # a finished trial is kept before the slower ones end
                result = future.result()
                if on_result is not None and not isinstance(result, Failure):
                    on_result(futures[future], result)
        return [future.result() for future in futures]

    def fit(self, function: Callable[..., Result], item: Any, shared: Any, on_epoch: OnEpoch) -> Result | Failure:
        """`function(item, shared, on_epoch)` on every worker; on_epoch is called here with what rank 0 says."""
        self._start(shared, 1)
        import ray

        reference, mailbox = ray.put(shared), new_mailbox()
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._fit, function, item, reference, mailbox, listens=True)
            future.add_done_callback(lambda _: done.set())
            while not done.wait(POLL_S):
                _deliver(mailbox, on_epoch)
            _deliver(mailbox, on_epoch)
            result: Result | Failure = future.result()
            return result

    def _start(self, shared: object, trials: int) -> None:
        if not self._started:
            self._session.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"ray\.data")  # about its own defaults
            run = self._settings
            cpus = trials * run.workers * run.cpus_per_worker
            self._session.enter_context(open_ray(run, cpus, measure_bytes(shared)))
            wait_for_room(trial_bundles(run, run.cpus_per_worker), "run.workers and run.cpus_per_worker")
            self._started = True

    def _fit(self, function: Callable[..., Any], item: Any, shared: Any, mailbox: Any, *, listens: bool = False) -> Any:
        """Runs in a thread of its own: in the main thread, Ray Train would take over Ctrl-C."""
        from ray import train
        from ray.train.torch import TorchConfig

        run = self._settings
        arguments = {"function": function, "item": item, "shared": shared, "mailbox": mailbox, "listens": listens}
        trainer = _trainer_class()(
            _work,
            train_loop_config=arguments | {"threads": run.cpus_per_worker},
            torch_config=TorchConfig(backend="nccl" if run.gpus_per_worker else "gloo"),
            scaling_config=train.ScalingConfig(
                num_workers=run.workers,
                use_gpu=run.gpus_per_worker > 0,
                resources_per_worker={"CPU": run.cpus_per_worker}
                | ({"GPU": run.gpus_per_worker} if run.gpus_per_worker else {}),
            ),
            run_config=train.RunConfig(
                name=f"{self._name}-{item}".replace("/", "-").replace(" ", "-").replace(",", ""),
                storage_path=storage_path(run.storage),
                failure_config=train.FailureConfig(max_failures=MAX_RETRIES, controller_failure_limit=MAX_RETRIES),
                checkpoint_config=train.CheckpointConfig(num_to_keep=KEPT),
            ),
        )
        try:
            result = trainer.fit()
        except Exception as error:
            return Failure(str(item), _reason(error))
        result.filesystem.delete_dir(result.path)  # what it held is in the result now
        # A copy: what Ray returns maps its object store, which is gone after the shutdown.
        return copy.deepcopy(result.return_value)


def _trainer_class() -> Any:
    """Ray Train's, without two helper processes that every fit would start and share its cores with.

    One hands out Ray Data's blocks, of which there are none; the other frees the workers' placement group when a trial
    of Tune that started them is stopped, and no fit is started by one here.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            unused = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [each for each in super()._create_default_callbacks() if not isinstance(each, unused)]

    return Trainer


def _deliver(mailbox: Any, on_epoch: OnEpoch) -> None:
    import ray

    for step, epoch in ray.get(mailbox.empty.remote()):
        on_epoch(step, epoch)


def _work(config: dict[str, Any]) -> Any:
    """What each worker runs.

    An exception stops the other workers, who may wait for this one, and Ray Train starts them all again. If it is one
    that would only come back, each then finds it in the mailbox and returns it; another may be the death of a peer.
    """
    import ray
    from ray import train

    torch.set_num_threads(config["threads"])
    mailbox, shared = config["mailbox"], ray.get(config["shared"])
    failure: Failure | None = ray.get(mailbox.failure.remote())
    if failure is not None:
        return failure

    def post(step: int, epoch: dict[str, float]) -> None:
        ray.get(mailbox.post.remote(step, epoch))

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / CHECKPOINT
        if (latest := train.get_checkpoint()) is not None:
            with latest.as_directory() as folder:
                file.write_bytes((Path(folder) / CHECKPOINT).read_bytes())

        def keep() -> None:
            """Training goes on while the copy of the checkpoint travels."""
            checkpoint = None
            if current_shard().rank == 0:
                copied = tempfile.mkdtemp()
                shutil.copy(file, copied)
                checkpoint = train.Checkpoint.from_directory(copied)
            train.report(
                {},
                checkpoint=checkpoint,
                checkpoint_upload_mode=train.CheckpointUploadMode.ASYNC,
                delete_local_checkpoint_after_upload=True,
            )

        with hosted(Host(file, keep)):
            more = [post] if config["listens"] else []
            try:
                result = config["function"](config["item"], shared, *more)
            except USER_ERRORS as error:
                ray.get(mailbox.fail.remote(Failure(str(config["item"]), describe(error))))
                raise
    return result if current_shard().rank == 0 else None


def storage_path(storage: str) -> str:
    """A url as it is, a folder as an absolute path: workers run in other folders."""
    return storage if "://" in storage else str(Path(storage).absolute())


def _reason(error: Exception) -> str:
    """What a person can read of Ray Train's reports, which hold a traceback for each worker."""
    import ray
    from ray import train

    failures = error.worker_failures.values() if isinstance(error, train.WorkerGroupError) else []
    for failure in failures:
        if isinstance(failure, ray.exceptions.RayActorError) or "ActorDied" in type(failure).__name__:
            return f"a worker died {MAX_RETRIES + 1} times; {explain_death(failure)}"
    return str(error).strip()

"""What the workers of a fit leave for each other and for who waits: an actor whose process imports next to nothing."""

from typing import Any

from pipeline.launch.launcher import Failure


def new_mailbox() -> Any:
    import ray

    return ray.remote(num_cpus=0)(_Mailbox).remote()


class _Mailbox:
    """Carries what the workers say to the process that waits for the fit, and to the workers that replace them."""

    def __init__(self) -> None:
        self._epochs: list[tuple[int, dict[str, float]]] = []
        self._failure: Failure | None = None

    def fail(self, failure: Failure) -> None:
        self._failure = failure

    def failure(self) -> Failure | None:
        return self._failure

    def post(self, step: int, epoch: dict[str, float]) -> None:
        self._epochs.append((step, epoch))

    def empty(self) -> list[tuple[int, dict[str, float]]]:
        epochs, self._epochs = self._epochs, []
        return epochs

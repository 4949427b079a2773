"""Who is told how loading goes: the stage context, or nobody."""

from typing import Protocol

from pipeline.progress import Progress


class Watcher(Protocol):
    """`pipeline.stage.Stage` is one."""

    def say(self, text: str) -> None: ...

    def progress(self, total: int, label: str) -> Progress: ...


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Drops the line."""

    def progress(self, total: int, label: str) -> Progress:
        return Progress(total, label, quiet=True)

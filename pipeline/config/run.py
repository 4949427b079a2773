"""Section `run`: what holds for every stage."""

from dataclasses import dataclass

from pipeline.config.rules import require_at_least, require_choice


@dataclass(frozen=True, kw_only=True)
class Run:
    seed: int
    """Root of every random draw, >= 0. Same seed, machine and settings: same bits."""
    threads: int
    """CPU threads of a stage that works in one process, >= 1. Another count gives other bits, so it is a parameter."""
    accelerator: str
    """cpu, gpu, or auto (a GPU when there is one)."""
    precision: str
    """32 or bf16 (mixed: master weights stay 32 bit)."""
    launch: str
    """Where trials run: ray, or local (one after another in this process). Both give the same numbers."""
    trials_at_once: int
    """How many trials of a study run side by side under ray, >= 1."""
    workers: int
    """Processes that train one model together, >= 1; above 1 needs launch ray. They share each batch, whose size stays:
    the model is the same up to rounding, so it is a parameter of the result."""
    cpus_per_worker: int
    """CPU threads of a study's trial, and of each worker of a fit that has several, >= 1. Another count, other bits."""
    gpus_per_worker: float
    """GPUs of a trial or worker, >= 0; 0.5 lets two share one. Above 0 needs accelerator gpu or auto."""
    address: str | None
    """The Ray cluster: null starts one on this machine for as long as a stage needs it, auto joins the one that runs
    here, host:port another."""
    storage: str
    """Where several workers keep their checkpoints: a folder that all nodes share, or an fsspec url such as s3://..."""
    tracking: str
    """W&B: offline (default, no account), online, or disabled."""

    def __post_init__(self) -> None:
        require_at_least("run.seed", self.seed, 0)
        require_at_least("run.threads", self.threads, 1)
        require_choice("run.accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        require_choice("run.precision", self.precision, ("32", "bf16"))
        require_choice("run.launch", self.launch, ("ray", "local"))
        require_at_least("run.trials_at_once", self.trials_at_once, 1)
        require_at_least("run.workers", self.workers, 1)
        require_at_least("run.cpus_per_worker", self.cpus_per_worker, 1)
        require_at_least("run.gpus_per_worker", self.gpus_per_worker, 0)
        self._check_together()
        require_choice("run.tracking", self.tracking, ("disabled", "offline", "online"))

    def _check_together(self) -> None:
        if self.workers > 1 and self.launch == "local":
            raise ValueError(
                f"run.workers {self.workers} needs Ray, but run.launch is local: set the one to 1 or the other to ray"
            )
        if self.gpus_per_worker > 0 and self.accelerator == "cpu":
            raise ValueError(
                f"run.gpus_per_worker {self.gpus_per_worker} has no use on run.accelerator cpu: set one or the other"
            )
        if self.address is not None and self.address != "auto" and ":" not in self.address:
            raise ValueError(f"run.address must be null, auto or host:port, got {self.address!r}")
        if not self.storage.strip():
            raise ValueError("run.storage is empty: give a folder that all nodes share, or an fsspec url")

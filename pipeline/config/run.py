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
    """How many trials of a study run side by side under ray, >= 1; each works with one thread."""
    tracking: str
    """W&B: offline (default, no account), online, or disabled."""

    def __post_init__(self) -> None:
        require_at_least("run.seed", self.seed, 0)
        require_at_least("run.threads", self.threads, 1)
        require_choice("run.accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        require_choice("run.precision", self.precision, ("32", "bf16"))
        require_choice("run.launch", self.launch, ("ray", "local"))
        require_at_least("run.trials_at_once", self.trials_at_once, 1)
        require_choice("run.tracking", self.tracking, ("disabled", "offline", "online"))

"""Section `dp`: training with differential privacy (DP-SGD, Abadi et al. 2016)."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_choice, require_positive

PRIVATE = ("vae", "finetune")


@dataclass(frozen=True, kw_only=True)
class Dp:
    models: list[str]
    """Stages that train privately: vae, finetune; empty for none. One guarantee a stage, for all it trains together."""
    epsilon: float
    """> 0; 1 is strong, 10 weak. What adding or removing one training image may change, in nats."""
    delta: float
    """Probability with which epsilon may not hold, in (0, 1); far below 1 / training images."""
    max_grad_norm: float
    """The gradient of each image is scaled down to this norm, > 0; 0.1..10."""

    def __post_init__(self) -> None:
        for name in self.models:
            require_choice("dp.models", name, PRIVATE)
        require_positive("dp.epsilon", self.epsilon)
        require(0 < self.delta < 1, "dp.delta", self.delta, "in (0, 1)")
        require_positive("dp.max_grad_norm", self.max_grad_norm)

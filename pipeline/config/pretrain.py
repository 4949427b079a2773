"""Section `pretrain`: the Deep Belief Network, one entry per layer, bottom first."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive

VISIBLE_UNITS = {"conv": ("bernoulli", "gaussian"), "dense": ("bernoulli", "gaussian", "gaussian_variance")}
HIDDEN_UNITS = ("bernoulli", "gaussian", "relu")
SCHEDULES = ("linear_tail", "cosine", "constant")


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """A convolutional RBM with probabilistic max-pooling (Lee et al. 2009)."""

    kind: str
    """conv."""
    below: str
    """What feeds it, a folder of out/: prepare for the images, pretrain/<layer> for another layer."""
    num_filters: int
    """Filter groups, >= 1; 16..64."""
    kernel_size: int
    """Side of a filter in pixels, >= 2; valid convolution, stride 1."""
    pool_size: int
    """Side of a pooling block, >= 1; at most one unit of a block is on."""
    visible: str
    """bernoulli (values in [0, 1] as probabilities) or gaussian (standardised, unit variance)."""
    steps: int
    """Parameter updates, >= 1."""
    batch_size: int
    """Images per update, >= 1."""
    lr: float
    """Learning rate, > 0."""
    schedule: str
    """linear_tail (the rate falls linearly to zero over the last half of the steps), cosine (over all of them) or
    constant."""
    momentum: float
    """In [0, 1)."""
    weight_decay: float
    """L2 on the filters, >= 0."""
    gibbs_steps: int
    """k of CD-k or PCD-k, >= 1."""
    persistent: bool
    """true: PCD (a chain for each image of the batch goes on from step to step); false: CD from the data."""
    sparsity_target: float
    """Wanted mean activation of a detection unit, in (0, 1)."""
    sparsity_cost: float
    """Weight of the sparsity penalty on the hidden biases, >= 0; 0 switches it off."""

    def __post_init__(self) -> None:
        require(self.kind == "conv", "pretrain.layers.*.kind", self.kind, "conv or dense")
        _check_training(self)
        require_at_least("pretrain.layers.*.num_filters", self.num_filters, 1)
        require_at_least("pretrain.layers.*.kernel_size", self.kernel_size, 2)
        require_at_least("pretrain.layers.*.pool_size", self.pool_size, 1)


@dataclass(frozen=True, kw_only=True)
class DenseLayer:
    """An RBM in which every unit sees all inputs; conv maps below it are flattened.

    Sound starts: bernoulli units lr 0.05, momentum 0.9; gaussian ones, whose inputs have no bound, lr 0.001..0.01;
    gaussian_variance lr 0.001..0.005 with momentum <= 0.5, since a small variance makes every gradient large; hidden
    gaussian and relu units, which have no bound either, lr 0.001..0.01.
    """

    kind: str
    """dense."""
    below: str
    """What feeds it, a folder of out/: prepare for the images, pretrain/<layer> for another layer."""
    num_hidden: int
    """Hidden units, >= 1; 128..1024."""
    visible: str
    """bernoulli (values in [0, 1] as probabilities), gaussian (standardised, unit variance) or gaussian_variance
    (standardised, then a variance learned for each unit)."""
    hidden: str
    """bernoulli, or in the top layer gaussian (linear, for codes: Hinton & Salakhutdinov 2006) or relu (noisy rectified
    linear, Nair & Hinton 2010)."""
    steps: int
    """Parameter updates, >= 1."""
    batch_size: int
    """Images per update, >= 1."""
    lr: float
    """Learning rate, > 0."""
    schedule: str
    """linear_tail (the rate falls linearly to zero over the last half of the steps), cosine (over all of them) or
    constant."""
    momentum: float
    """In [0, 1)."""
    weight_decay: float
    """L2 on the weights, >= 0."""
    gibbs_steps: int
    """k of CD-k or PCD-k, >= 1."""
    persistent: bool
    """true: PCD (the chains go on from step to step); false: CD from the data."""
    num_temperatures: int
    """1, or with persistent the chains' temperatures in parallel tempering, 5..20: each costs as much as PCD by itself,
    and the swap_rate that is reported should be above 0.2."""
    centred: bool
    """true: centred gradients, which do not depend on which value of a unit is called 1."""
    sparsity_target: float
    """Wanted mean activation of a hidden unit, in (0, 1)."""
    sparsity_cost: float
    """Weight of the sparsity penalty, >= 0; 0 switches it off."""

    def __post_init__(self) -> None:
        require(self.kind == "dense", "pretrain.layers.*.kind", self.kind, "conv or dense")
        _check_training(self)
        require_at_least("pretrain.layers.*.num_hidden", self.num_hidden, 1)
        require_choice("pretrain.layers.*.hidden", self.hidden, HIDDEN_UNITS)
        key, count = "pretrain.layers.*.num_temperatures", self.num_temperatures
        require_at_least(key, count, 1)
        require(count == 1 or self.persistent, key, count, "1 without persistent: true, whose chains it tempers")
        binary = self.hidden == "bernoulli"
        require(count == 1 or binary, key, count, f"1 with hidden: {self.hidden}, whose states cannot be summed over")


Layer = ConvLayer | DenseLayer


def _check_training(layer: Layer) -> None:
    prefix = "pretrain.layers.*"
    require_choice(f"{prefix}.visible", layer.visible, VISIBLE_UNITS[layer.kind])
    for key in ("steps", "batch_size", "gibbs_steps"):
        require_at_least(f"{prefix}.{key}", getattr(layer, key), 1)
    require_positive(f"{prefix}.lr", layer.lr)
    require_choice(f"{prefix}.schedule", layer.schedule, SCHEDULES)
    require_fraction(f"{prefix}.momentum", layer.momentum)
    require_at_least(f"{prefix}.weight_decay", layer.weight_decay, 0)
    require(0 < layer.sparsity_target < 1, f"{prefix}.sparsity_target", layer.sparsity_target, "in (0, 1)")
    require_at_least(f"{prefix}.sparsity_cost", layer.sparsity_cost, 0)

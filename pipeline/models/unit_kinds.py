"""The kinds of visible units of a restricted Boltzmann machine, by name."""

from pipeline.models.categorical_units import ReplicatedSoftmax, Softmax
from pipeline.models.units import Bernoulli, Gaussian, LearnedGaussian, VisibleUnits

KINDS: dict[str, VisibleUnits] = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(),
    "gaussian_variance": LearnedGaussian(),
    "replicated_softmax": ReplicatedSoftmax(),
}


def make_units(kind: str, num_visible: int, num_values: int) -> VisibleUnits:
    """num_values: of a softmax unit; other kinds have none.  Raises ValueError for what does not fit together."""
    if kind != "softmax":
        if kind not in KINDS:
            raise ValueError(f"visible must be one of {', '.join([*KINDS, 'softmax'])}, got {kind!r}")
        return KINDS[kind]
    if num_values < 2 or num_visible % num_values:
        raise ValueError(
            f"num_values must be >= 2 and divide num_visible, {num_visible}, got {num_values}: softmax units come in "
            "groups with one unit for every value"
        )
    return Softmax(num_values)

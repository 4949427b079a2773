"""What a stage that trains with differential privacy promises, and the secret that its noise comes from."""

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.artifacts import Json
from pipeline.config.dp import Dp
from pipeline.training.accounting import Steps, check_epsilon, find_noise
from pipeline.training.plan import PrivateSteps

SECRET = "dp-secret"


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """Of all fits of a stage together: their models see the same images, so what each tells adds up.

    epsilon: by opacus' PRV accountant.  renyi_epsilon: by our own bound.  steps: of each fit.
    """

    epsilon: float
    renyi_epsilon: float
    delta: float
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    fits: int

    @property
    def sentence(self) -> str:
        models = "1 model" if self.fits == 1 else f"{self.fits} models together"
        return (
            f"Differentially private training of {models}: epsilon {self.epsilon:.3f} at delta {self.delta:g} for "
            "adding or removing one training image (opacus' PRV accountant; our own bound says "
            f"{self.renyi_epsilon:.3f}). It covers the weights and what is made of them alone, not numbers that look "
            "at training images, such as an audit's, nor the choice of settings, nor other stages."
        )

    def numbers(self) -> dict[str, float]:
        return {name: float(value) for name, value in asdict(self).items()}

    def as_json(self) -> Json:
        return asdict(self) | {"sentence": self.sentence}

    def private_steps(self, secret: int) -> PrivateSteps:
        return PrivateSteps(noise_multiplier=self.noise_multiplier, max_grad_norm=self.max_grad_norm, secret=secret)


def plan_guarantee(dp: Dp, *, num_images: int, batch_size: int, steps: int, fits: int) -> Guarantee:
    """The least noise that keeps dp.epsilon over all fits.

    Raises ValueError for a delta that would let whole images out, and where no noise is enough.
    """
    if dp.delta >= 1 / num_images:
        raise ValueError(
            f"dp.delta must be < 1 / {num_images} training images, got {dp.delta:g}, which giving away one image would "
            "satisfy: lower it in params.yaml"
        )
    rate = min(1.0, batch_size / num_images)
    all_steps = Steps(sample_rate=rate, count=fits * steps, delta=dp.delta)
    noise = find_noise(dp.epsilon, all_steps)
    found = check_epsilon(noise, all_steps)
    return Guarantee(
        epsilon=found["prv"],
        renyi_epsilon=found["renyi"],
        delta=dp.delta,
        noise_multiplier=noise,
        max_grad_norm=dp.max_grad_norm,
        sample_rate=rate,
        steps=steps,
        fits=fits,
    )


def load_secret(work: Path) -> int:
    """A random number that lives as long as a stage's resume folder: a killed fit goes on with its own noise, and once
    the stage has succeeded nobody can take the noise off, nor does another fit use it again.
    """
    path = work / SECRET
    if not path.is_file():
        temporary = path.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_text(str(secrets.randbits(63)), encoding="ascii")
        temporary.replace(path)
    return int(path.read_text(encoding="ascii"))

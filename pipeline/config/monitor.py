"""Section `monitor`: what is watched of every layer of the DBN in training; nothing of it reaches the weights."""

from dataclasses import dataclass

from pipeline.config.rules import require_at_least


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """Log-likelihoods by annealed importance sampling, of dense layers of bernoulli units; others have none.

    A look whose effective sample size is below 50 is refused: it leaves an empty value with the reason, not a number.
    """

    ais_looks: int
    """Estimates per layer, evenly over the updates and one at the end, >= 0; 0 switches them off."""
    ais_chains: int
    """>= 50, the least effective sample size; 100..500. Time goes with chains times temperatures."""
    ais_temperatures: int
    """>= 2; some hundred for a small layer, 1,000..10,000 where looks are refused."""

    def __post_init__(self) -> None:
        require_at_least("monitor.ais_looks", self.ais_looks, 0)
        require_at_least("monitor.ais_chains", self.ais_chains, 50)
        require_at_least("monitor.ais_temperatures", self.ais_temperatures, 2)

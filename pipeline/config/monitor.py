"""Section `monitor`: what is watched of every layer of the DBN in training; nothing of it reaches the weights."""

from dataclasses import dataclass
from itertools import pairwise

from pipeline.config.rules import require, require_at_least


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

    chain_rounds: list[int]
    """Rounds of Gibbs sampling after which the report shows the chains of a layer, rising from 0, the start."""

    def __post_init__(self) -> None:
        require_at_least("monitor.ais_looks", self.ais_looks, 0)
        require_at_least("monitor.ais_chains", self.ais_chains, 50)
        require_at_least("monitor.ais_temperatures", self.ais_temperatures, 2)
        rounds = self.chain_rounds
        rising = all(low < high for low, high in pairwise(rounds))
        require(rising and rounds[:1] == [0], "monitor.chain_rounds", rounds, "rising counts from 0 on")

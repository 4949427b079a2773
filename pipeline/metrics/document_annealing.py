"""log Z of a replicated softmax RBM by annealed importance sampling: Salakhutdinov & Hinton 2009, sec. 3.

Every length of a document has its own log Z, of sequences of words. The path leads from independent words with the
shares exp(base) to the machine; tests/test_documents.py holds it against enumeration.
"""

# L lengths, M chains of each, V words, H hidden units

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli, sample_counts


@dataclass(frozen=True)
class DocumentPartition:
    """log_z: of each length, (L,) nats, in expectation too low.  ess: effective sample sizes, at most M."""

    log_z: Tensor
    ess: Tensor


@torch.no_grad()
def anneal_documents(
    rbm: RBM, base_V: Tensor, lengths: Tensor, *, num_chains: int, num_temperatures: int, generator: torch.Generator
) -> DocumentPartition:
    """base_V: log shares of words, such as the training texts'.  lengths: (L,) whole numbers.

    Raises ValueError unless the units are replicated softmax over Bernoulli ones.
    """
    if rbm.visible != "replicated_softmax" or not rbm.hidden_units.binary:
        raise ValueError(
            f"only replicated_softmax over bernoulli units is annealed here, got {rbm.visible}, {rbm.hidden}"
        )
    D_N = lengths.to(base_V.dtype).repeat_interleave(num_chains)[:, None]
    v = sample_counts(D_N * torch.softmax(base_V, 0), generator)
    log_weight = torch.zeros_like(D_N[:, 0])
    betas = torch.linspace(0, 1, num_temperatures, dtype=base_V.dtype).tolist()

    def log_p(beta: float, v: Tensor, inputs: Tensor) -> Tensor:
        return v @ ((1 - beta) * base_V + beta * rbm.visible_bias) + F.softplus(beta * inputs).sum(1)

    for before, beta in pairwise(betas):
        inputs = rbm.hidden_inputs(v)
        log_weight += log_p(beta, v, inputs) - log_p(before, v, inputs)
        h = sample_bernoulli(torch.sigmoid(beta * inputs), generator)
        words = (1 - beta) * base_V + beta * (rbm.visible_bias + h @ rbm.weight.t())
        v = sample_counts(D_N * torch.softmax(words, 1), generator)
    start = lengths * torch.logsumexp(base_V, 0) + rbm.num_hidden * math.log(2)
    weights_LM = log_weight.view(-1, num_chains).double()
    log_z = torch.logsumexp(weights_LM, 1) - math.log(num_chains) + start
    ess = torch.exp(2 * torch.logsumexp(weights_LM, 1) - torch.logsumexp(2 * weights_LM, 1))
    return DocumentPartition(log_z, ess)


def perplexity(log_likelihood: Tensor, lengths: Tensor) -> float:
    """exp of minus the mean log probability of a word, each document counting once: (N,) nats, (N,) words."""
    return math.exp(-float((log_likelihood / lengths).mean()))

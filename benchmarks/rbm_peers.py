"""Other people's RBMs, each as a function that makes one pass over binary images in batches of its own kind.

scikit-learn's comes with the project; learnergy and rbms are looked for and left out where they cannot be imported.
"""

import logging
import os
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

Pass = Callable[[], object]

LR = 0.05


def scikit_learn(x: Tensor, num_hidden: int, batch_size: int) -> Pass:
    """PCD-1, float32."""
    images = x.numpy()
    model = BernoulliRBM(num_hidden, learning_rate=LR, batch_size=batch_size, n_iter=1, random_state=0)
    return lambda: model.fit(images)


def learnergy(x: Tensor, num_hidden: int, batch_size: int) -> Pass:
    """CD-1."""
    from learnergy.models.bernoulli import RBM

    logging.disable(logging.CRITICAL)
    model = RBM(x.shape[1], num_hidden, steps=1, learning_rate=LR)
    data = torch.utils.data.TensorDataset(x, torch.zeros(len(x)))
    return lambda: model.fit(data, batch_size=batch_size, epochs=1)


def rbms(x: Tensor, num_hidden: int, batch_size: int) -> Pass:
    """PCD-1, the step of its own training loop without what that writes to files."""
    typing.override = getattr(typing, "override", lambda method: method)  # type: ignore[attr-defined]
    os.environ["TQDM_DISABLE"] = "1"
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.dataset.dataset_class import RBMDataset
    from rbms.training.pcd import fit_batch_pcd

    count = len(x)
    names = np.arange(count).astype(str)
    data = RBMDataset(x.numpy(), np.zeros(count), np.ones(count), names, "digits", True, device="cpu")
    model: Any = BBRBM.init_parameters(num_hidden, data, torch.device("cpu"), torch.float32)
    model.init_grad()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, maximize=True)
    chains = model.init_chains(batch_size)
    weights = torch.ones(batch_size, 1)

    def run() -> None:
        nonlocal chains
        for index in torch.randperm(count)[: count // batch_size * batch_size].split(batch_size):
            optimizer.zero_grad(set_to_none=False)
            chains, _ = fit_batch_pcd((x[index], weights), chains, model, gibbs_steps=1, beta=1.0, centered=False)
            optimizer.step()

    return run


PEERS: dict[str, Callable[[Tensor, int, int], Pass]] = {
    "scikit-learn": scikit_learn,
    "learnergy": learnergy,
    "rbms": rbms,
}


def make_peers(x: Tensor, num_hidden: int, batch_size: int) -> dict[str, Pass]:
    """Those that can be imported, by name; says which ones cannot."""
    found = {}
    for name, make in PEERS.items():
        try:
            found[name] = make(x, num_hidden, batch_size)
        except ImportError as error:
            print(f"no row for {name}: {error}")
    return found

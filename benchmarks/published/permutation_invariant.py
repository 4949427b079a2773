"""Permutation-invariant MNIST with all labels: a DBN fine-tuned with dropout, and the same network unpretrained.

Srivastava et al. 2014 (table 2) have 0.92 % from a DBN with dropout. Dropout rates are theirs; no setting was tuned.
"""

import torch

from benchmarks.published.digits import SEED, Digits, Effort, as_floats
from benchmarks.published.finetuning import finetune, pretrain
from benchmarks.record import Row
from pipeline.metrics.score import score_rate
from pipeline.models.mlp import MLP
from pipeline.seeding import make_generator

HIDDEN = (500, 500, 2000)
PRETRAIN_EPOCHS = 5
EPOCHS = 60
INPUT_DROPOUT, DROPOUT = 0.2, 0.5
MAX_NORM = 0.0


def measure_dropout(digits: Digits, effort: Effort) -> list[Row]:
    """Test errors of both, trained alike."""
    layers = [{"num_hidden": size, "lr": 0.1, "momentum": 0.5, "weight_decay": 2e-4} for size in HIDDEN]
    pretrained, random = (network() for _ in range(2))
    generator = make_generator(SEED, "dropout", "weights")
    pretrained.init_from_dbn(pretrain(digits, effort, layers, PRETRAIN_EPOCHS), generator)
    random.init_random(generator)
    for name, model in (("dropout", pretrained), ("dropout-random", random)):
        finetune(model, digits, effort, name=name, epochs=EPOCHS, batch_size=100, lr=1e-3, schedule="cosine")
    return [
        _row("test error, DBN and dropout", digits, pretrained, 0.92, effort.bar(0.95), effort.bar(0.80)),
        _row("test error, dropout, no DBN", digits, random, None, None, None),
    ]


def network() -> MLP:
    return MLP([784, *HIDDEN, 10], input_dropout=INPUT_DROPOUT, dropout=DROPOUT, max_norm=MAX_NORM)


def _row(name: str, digits: Digits, model: MLP, baseline: float | None, bar: float | None, goal: float | None) -> Row:
    predicted = model.predict_log_probabilities(as_floats(digits.test_images)).argmax(1)
    rate = score_rate((predicted != torch.from_numpy(digits.test_labels)).numpy())
    return Row(
        name=name,
        value=100 * rate.value,
        unit="%",
        low=100 * rate.low,
        high=100 * rate.high,
        seeds=1,
        baseline=baseline,
        bar=bar,
        goal=goal,
    )

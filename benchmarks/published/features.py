"""A linear classifier on the hidden units of an RBM, and on the pixels."""

import sys
import warnings

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.published.digits import Digits, Effort, as_floats, dense_layer, train
from benchmarks.record import Row
from pipeline.metrics.score import score_rate
from pipeline.models.dbn import DBN

INVERSE_PENALTIES = (0.1, 1.0, 10.0)
"""C of the logistic regression, chosen on the held-out images."""


def measure_features(digits: Digits, effort: Effort) -> list[Row]:
    """Test error of a logistic regression on P(h = 1 | image), and on the pixels."""
    steps = effort.steps(20, len(digits.data.images))
    layer = dense_layer(num_hidden=500, steps=steps, lr=0.1, gibbs_steps=1, persistent=True)
    dbn = train(digits, effort, layer, sampled=False)
    rows = []
    for name, depth, baseline, bar in (("500 RBM features", 1, 2.33, 2.3), ("raw pixels", 0, 8.0, None)):
        wrong = linear_errors(digits, dbn, depth, effort)
        rate = score_rate(wrong)
        rows.append(
            Row(
                name=f"test error, {name}",
                value=100 * rate.value,
                unit="%",
                low=100 * rate.low,
                high=100 * rate.high,
                seeds=1,
                baseline=baseline,
                bar=None if bar is None else effort.bar(bar),
            )
        )
    return rows


@torch.no_grad()
def linear_errors(digits: Digits, dbn: DBN, depth: int, effort: Effort) -> npt.NDArray[np.bool_]:
    """(N,) True where a logistic regression on layer `depth` is wrong about a test image."""
    sets = (digits.data.images, digits.data.validation, digits.test_images)
    x, x_validation, x_test = (dbn.mean_field(as_floats(images), depth).flatten(1).numpy() for images in sets)
    best, best_accuracy = None, -1.0
    for inverse_penalty in INVERSE_PENALTIES[:1] if effort.quick else INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse_penalty, tol=1e-3, max_iter=20 if effort.quick else 300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is one more penalty
            model.fit(x, digits.labels)
        accuracy = float(model.score(x_validation, digits.validation_labels))
        print(f"C = {inverse_penalty:g}: {100 - 100 * accuracy:.2f} % of the held-out images wrong", file=sys.stderr)
        if accuracy > best_accuracy:
            best, best_accuracy = model, accuracy
    assert best is not None
    return np.asarray(best.predict(x_test) != digits.test_labels)

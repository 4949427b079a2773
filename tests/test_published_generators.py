"""The published generator rows' own arithmetic on tiny data: models that know the answer, fits that go on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.published import accuracy_scores, kept_fits, latent_labels, vae_bound
from benchmarks.published.digits import Digits, Effort
from benchmarks.published.kept_fits import fit_kept
from benchmarks.published.vae_bound import LATENT
from benchmarks.record import Row
from pipeline.models.importance_vae import ImportanceVAE
from pipeline.models.losses import UNLABELLED
from pipeline.models.semi_supervised_vae import SemiSupervisedVAE
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream
from tests.test_published import digits

FULL = Effort(quick=False, accelerator="cpu")


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def fit_tiny(steps: int, effort: Effort = FULL) -> tuple[ImportanceVAE, float | None]:
    model = ImportanceVAE(4, [3], 2, generator=torch.Generator().manual_seed(0))
    images = (torch.rand(20, 4, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    stream = BatchStream(images, torch.full((20,), UNLABELLED), batch_size=5, seed=0)
    seconds = fit_kept(model, stream, FitPlan(steps=steps, steps_per_epoch=2, lr=0.01, seed=0), effort, name="tiny")
    return model, seconds


def test_a_killed_fit_goes_on_and_a_finished_one_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    undisturbed, seconds = fit_tiny(6, Effort(quick=True, accelerator="cpu"))
    assert seconds is not None
    assert not list(tmp_path.iterdir())

    def fit_and_die(*arguments: Any, **others: Any) -> None:
        def die(step: int, _: Epoch) -> None:
            if step == 4:
                raise RuntimeError(f"killed at {step}")

        fit(*arguments, **{**others, "on_epoch": die})

    monkeypatch.setattr(kept_fits, "fit", fit_and_die)
    with pytest.raises(RuntimeError, match="killed at 4"):
        fit_tiny(6)
    monkeypatch.setattr(kept_fits, "fit", fit)
    resumed, seconds = fit_tiny(6)
    assert seconds is None
    monkeypatch.setattr(kept_fits, "fit", None)
    found, seconds = fit_tiny(6)
    assert seconds is None
    for model in (resumed, found):
        for one, other in zip(model.parameters(), undisturbed.parameters(), strict=True):
            assert torch.equal(one, other)


def test_the_bound_row_is_the_models_bound_on_binary_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent pixels with the logits 0: each binary image has 784 log 2 nats, whatever is drawn."""
    monkeypatch.setattr(vae_bound, "train_vae", lambda *_: (ImportanceVAE(784, [3], 2), None))
    monkeypatch.setattr(vae_bound, "SAMPLES", 10)
    (row,) = vae_bound.measure_bound(digits(40), FULL)
    assert row.value == pytest.approx(-784 * np.log(2), rel=1e-6)
    assert row.misses_bar()


def labelled_digits() -> Digits:
    """Images of one grey level a class: every classifier that looks is right."""
    known = digits(120)
    shades = [
        np.broadcast_to(labels[:, None, None, None] * 25, images.shape).astype(np.uint8)
        for labels, images in ((known.labels, known.data.images), (known.test_labels, known.test_images))
    ]
    return Digits(
        type(known.data)(shades[0], known.data.validation),
        known.labels,
        known.validation_labels,
        shades[1],
        known.test_labels,
    )


def shade(labels: Tensor) -> np.ndarray[Any, Any]:
    return (labels[:, None, None, None] * 25).expand(-1, 1, 28, 28).numpy().astype(np.uint8)


def test_samples_score_by_the_labels_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled_digits()
    monkeypatch.setattr(accuracy_scores, "NEIGHBOUR_BARS", {"mnist": (0.92, 0.909)})
    monkeypatch.setattr(accuracy_scores, "NEIGHBOURS_AMONG", 40)
    monkeypatch.setattr(accuracy_scores, "train_vae", lambda *_: None)
    monkeypatch.setattr(accuracy_scores, "sample_images", lambda _, labels, *__: shade(labels))
    rows = by_name(accuracy_scores.measure_neighbours(data, FULL))
    assert rows["1-NN accuracy, mnist, VAE samples"].value == 1
    monkeypatch.setattr(accuracy_scores, "sample_images", lambda _, labels, *__: shade((labels + 1) % 10))
    rows = by_name(accuracy_scores.measure_neighbours(data, FULL))
    assert rows["1-NN accuracy, mnist, VAE samples"].value == 0
    assert rows["1-NN accuracy, mnist, VAE samples"].misses_bar()
    assert rows["1-NN accuracy, mnist, class-wise PPCA"].value == 1
    assert rows["1-NN accuracy, mnist, real images"].value == 1


def test_the_gap_is_that_of_a_network_on_real_images_and_on_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled_digits()
    monkeypatch.setattr(accuracy_scores, "CNN_IMAGES", 40)
    monkeypatch.setattr(accuracy_scores, "train_vae", lambda *_: None)
    monkeypatch.setattr(accuracy_scores, "sample_images", lambda _, labels, *__: shade(labels))
    hits = {"real images": np.arange(100) >= 1, "VAE samples": np.arange(100) >= 5}
    seen: dict[str, tuple[Any, Any]] = {}

    def classify(_: Digits, __: Effort, name: str, images: Any, labels: Any) -> Any:
        seen[name] = (images, labels)
        return hits[name]

    monkeypatch.setattr(accuracy_scores, "classify_test", classify)
    rows = by_name(accuracy_scores.measure_cnn(data, FULL))
    assert rows["CNN accuracy, real less samples"].value == pytest.approx(4)
    assert rows["CNN accuracy, real less samples"].misses_bar()
    np.testing.assert_array_equal(seen["VAE samples"][0], shade(torch.from_numpy(seen["VAE samples"][1])))
    assert seen["real images"][1] is data.labels


def test_codes_are_drawn_from_the_posteriors() -> None:
    posteriors = torch.tensor([3.0, -1.0, 2 * math.log(0.5), 0.0]).expand(4000, 4)
    z = latent_labels.draw_codes(posteriors, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), torch.tensor([3.0, -1.0]), atol=0.06, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([0.5, 1.0]), atol=0.05, rtol=0)


def clusters(labels: np.ndarray[Any, Any], seed: int) -> Tensor:
    """Posteriors whose means lie near a corner of a cube for each of ten classes, and are sharp."""
    corners = torch.randn(10, LATENT, generator=torch.Generator().manual_seed(0)).sign()
    noise = torch.randn(len(labels), LATENT, generator=torch.Generator().manual_seed(seed))
    means = corners[torch.from_numpy(labels)] + 0.3 * noise
    return torch.cat([means, torch.full_like(means, -6.0)], dim=1)


def test_graph_and_m2_learn_clustered_codes_from_one_label_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, value in {"HIDDEN": (30,), "LABELLED_BATCH": 10, "UNLABELLED_BATCH": 50}.items():
        monkeypatch.setattr(latent_labels, key, value)
    pool, test = np.arange(400) % 10, np.arange(60) % 10
    codes = latent_labels.Codes(clusters(pool, 1), pool, clusters(test, 2))
    labelled = np.arange(10)
    (by_graph,) = latent_labels.classify_by_graph(codes, labelled[None])
    np.testing.assert_array_equal(by_graph, test)

    def fit_briefly(model: SemiSupervisedVAE, stream: Any, plan: FitPlan, effort: Effort, *, name: str) -> Any:
        return fit_kept(
            model, stream, FitPlan(steps=80, steps_per_epoch=80, lr=0.01, seed=plan.seed), effort, name=name
        )

    monkeypatch.setattr(latent_labels, "fit_kept", fit_briefly)
    by_m2 = latent_labels.classify_by_m2(codes, labelled, 0, Effort(quick=True, accelerator="cpu"))
    assert (by_m2 == test).mean() > 0.9

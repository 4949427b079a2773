from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from pipeline.applications.anomaly import ENSEMBLE, SIMPLE, TRAINED, judge_tasks, make_tasks, publish_model, run_tasks
from pipeline.applications.anomaly_command import load_detector
from pipeline.applications.anomaly_fits import CONV_RBM, FITS, DetectorData, DetectorTask
from pipeline.applications.anomaly_pictures import choose_shown, map_grid
from pipeline.applications.anomaly_story import as_metrics, say_winner, summarise, tell
from pipeline.config.anomaly import Anomaly
from pipeline.config.generators import Gan, Vae
from pipeline.config.load import load_params
from pipeline.config.pretrain import ConvLayer
from pipeline.launch.local import LocalLauncher
from pipeline.metrics.detection import compute_auroc
from pipeline.models.dbn import DBN
from pipeline.models.detectors import COMPONENTS, NeighbourDetector, RbmDetector, neighbour_distance, pooled_features
from pipeline.weights import save_weights
from stages.anomaly import main

ROOT = Path(__file__).parent.parent
PARAMS = load_params(ROOT / "params.yaml")
FEW = {"vae_steps": 8, "gan_steps": 4, "encoder_steps": 4, "rbm_steps": 8, "conv_steps": 4, "rbm_hidden": 8}
Pieces = tuple[list[DetectorTask], DetectorData, np.ndarray]


def settings(**changes: object) -> Anomaly:
    return replace(PARAMS.section(Anomaly), **{**FEW, **changes})  # type: ignore[arg-type]


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Class 0 has upright stripes, class 1 level ones, class 2 none."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 60, (count, 1, 28, 28)).astype(np.uint8)
    for image, label, start in zip(images, labels, rng.integers(0, 6, count), strict=True):
        if label == 0:
            image[0, :, start::6] = 220
        elif label == 1:
            image[0, start::6, :] = 220
    return images, labels


def pieces(work: Path, **changes: object) -> Pieces:
    (train, labels), (held_out, held_labels), (judged, judged_labels) = (stripes(n, n) for n in (90, 60, 45))
    vae, gan = PARAMS.section(Vae), PARAMS.section(Gan)
    tasks = make_tasks(
        settings(**changes),
        replace(vae, width=4, batch_size=16),
        replace(gan, width=4, batch_size=16),
        ["upright", "level", "none"],
        seed=0,
        accelerator="cpu",
        precision="32",
        work=work,
    )
    return tasks, DetectorData(train, labels, held_out, held_labels, judged), judged_labels


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    tasks, data, labels = pieces(tmp_path_factory.mktemp("work"), normal_classes=[0])
    run_tasks(tasks, data, LocalLauncher(), lambda _: None)
    return tasks, data, labels


def test_every_score_is_judged_for_the_normal_class(done: Pieces) -> None:
    tasks, data, labels = done
    results = run_tasks(tasks, data, LocalLauncher(), lambda _: None)  # read, not fitted again
    found = judge_tasks(tasks, results, labels)
    assert [each.score for each in found] == [*TRAINED, *SIMPLE]
    by_name = {each.score: each.detection for each in found}
    assert by_name["pca"].auroc == compute_auroc(results[-1][1]["pca"], labels != 0)
    assert by_name["nearest_neighbour"].auroc > 0.95
    assert by_name["ensemble"].false_positives is not None  # 20 held-out images are enough for a rate of 0.05
    normal, judged = (
        {name: part for each in side for name, part in each.items()} for side in zip(*results, strict=True)
    )
    scaled = [(judged[name] - normal[name].mean()) / normal[name].std() for name in ENSEMBLE]
    assert by_name["ensemble"].auroc == compute_auroc(np.mean(scaled, axis=0), labels != 0)


def test_a_task_that_was_killed_ends_the_same(done: Pieces, tmp_path: Path) -> None:
    """The checkpoints of three of four epochs are what a kill leaves; with them the last epoch is run again."""
    tasks, data, _ = done
    wanted = run_tasks(tasks, data, LocalLauncher(), lambda _: None)
    assert sorted(file.name for task in tasks for file in task.work.glob("*.ckpt")) == [
        "conv_rbm.ckpt",
        "f_anogan.ckpt",
        "gan.ckpt",
        "rbm.ckpt",
        "vae.ckpt",
    ]
    for task in tasks:
        (task.work / "scores.json").unlink()
    found = run_tasks(tasks, data, LocalLauncher(), lambda _: None)
    for before, after in zip(wanted, found, strict=True):
        for one, other in zip(before, after, strict=True):
            assert one.keys() == other.keys()
            for name, scores in one.items():
                np.testing.assert_array_equal(scores, other[name])


def test_classes_that_cannot_be_normal_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"anomaly.normal_classes must be below 3, the number of classes, got"):
        pieces(tmp_path, normal_classes=[3])
    assert {task.normal_class for task in pieces(tmp_path, normal_classes=[])[0]} == {0, 1, 2}
    tasks, data, _ = pieces(tmp_path, normal_classes=[1])
    bare = replace(data, held_out_labels=np.zeros(60, np.int64))
    with pytest.raises(ValueError, match=r"class level of anomaly.normal_classes has 0 validation images, needs at"):
        run_tasks(tasks[-1:], bare, LocalLauncher(), lambda _: None)


def test_too_few_held_out_images_leave_no_threshold_and_a_dash(done: Pieces) -> None:
    tasks, data, labels = done
    results = run_tasks(tasks, data, LocalLauncher(), lambda _: None)
    strict = [replace(task, settings=settings(normal_classes=[0], false_positive_rate=0.01)) for task in tasks]
    found = judge_tasks(strict, results, labels)
    assert {each.detection.true_positives for each in found} == {None}
    names = ["upright", "level", "none"]
    story = tell(found, [], names, strict[0].settings, num_judged=45, table_name="", drawings=[])
    assert {row.values[2] for row in story.tables[0].rows} == {"-"}
    assert "true_positives" not in as_metrics(summarise(found))["pca"]
    assert [row.name for row in story.tables[0].rows if row.baseline] == [row.name for row in story.tables[1].rows][-3:]


def test_the_sentence_says_who_wins(done: Pieces) -> None:
    tasks, data, labels = done
    found = judge_tasks(tasks, run_tasks(tasks, data, LocalLauncher(), lambda _: None), labels)

    def sentence(best: str) -> str:
        changed = [
            replace(each, detection=replace(each.detection, auroc=0.9 if each.score == best else 0.8)) for each in found
        ]
        return say_winner(summarise(changed), 1, 1)

    assert sentence("f_anogan").startswith("The highest trained score is above the best baseline: f-AnoGAN 0.900, ")
    assert sentence("pca").startswith("Here a simple method wins with the residual of principal components: ")
    assert sentence("nothing").startswith("Here no trained score is better than the ")


def test_a_detector_judges_a_folder_of_pictures(
    done: Pieces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, data, _ = done
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, image in enumerate(data.judged[:6]):
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    for task in tasks[:-1]:
        publish_model(task, tmp_path)
        model, out = tmp_path / f"{task.kind}.safetensors", tmp_path / task.kind
        assert main(["--model", str(model), "--in", str(folder), "--out", str(out)]) == 0
        lines = (out / "scores.csv").read_text().splitlines()
        scores = np.load(task.work / "judged.npy")[0, :6]
        np.testing.assert_allclose([float(line.split(",")[1]) for line in lines[1:]], scores, rtol=1e-4)
        assert (out / "maps.png").is_file() == (task.kind != "conv_rbm")
        assert f"6 images judged by {task.kind}, which takes upright for normal" in capsys.readouterr().out
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "large.png")
    assert main(["--model", str(model), "--in", str(folder), "--out", str(out)]) == 1
    assert "large.png has 32x32 pixels, the model's images have 28x28" in capsys.readouterr().err
    save_weights(tmp_path / "other.safetensors", {"w": torch.zeros(1)}, kind="vae", config={})
    assert main(["--model", str(tmp_path / "other.safetensors"), "--in", str(folder), "--out", str(out)]) == 1
    assert "holds a 'vae', not a 'anomaly'" in capsys.readouterr().err


def test_maps_stand_below_their_images(done: Pieces, tmp_path: Path) -> None:
    tasks, data, labels = done
    for task in tasks[:-1]:
        publish_model(task, tmp_path)
    detectors = [load_detector(tmp_path / f"{kind}.safetensors").detector for kind in FITS]
    shown = choose_shown(labels, 0)
    assert labels[shown].tolist() == [0] * 8 + [1, 2] * 4
    grid = map_grid(detectors, data.judged, labels, 0)
    assert grid.shape == (4 * 29 - 1, 16 * 29 - 1, 1)
    rbm = next(each for each in detectors if isinstance(each, RbmDetector))
    first = torch.from_numpy(data.judged[shown[:1]]).float() / 255
    made = rbm.dbn.reconstruct(first)
    wanted = (first - made.view_as(first)).abs()[0, 0].mul(255).round().detach().numpy()
    np.testing.assert_allclose(grid[3 * 29 : 3 * 29 + 28, :28, 0], wanted, atol=1)


def test_colour_images_go_through_every_detector(tmp_path: Path) -> None:
    tasks, grey, labels = pieces(tmp_path, normal_classes=[0])

    def colour(images: np.ndarray) -> np.ndarray:
        return np.pad(images.repeat(3, axis=1), ((0, 0), (0, 0), (2, 2), (2, 2)))

    data = replace(grey, images=colour(grey.images), held_out=colour(grey.held_out), judged=colour(grey.judged[:20]))
    results = run_tasks(tasks, data, LocalLauncher(), lambda _: None)
    assert len(judge_tasks(tasks, results, labels[:20])) == len(TRAINED) + len(SIMPLE)
    publish_model(tasks[0], tmp_path)
    detector = load_detector(tmp_path / f"{tasks[0].kind}.safetensors").detector
    assert map_grid([detector], data.judged, labels[:20], 0).shape[2] == 3


def test_distances_are_those_of_scikit_learn_in_half_whitened_components() -> None:
    images = torch.from_numpy(stripes(60, 1)[0]).float() / 255
    dbn = DBN([ConvLayer(steps=1, **CONV_RBM)], (1, 28, 28))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        dbn.rbms()[0].weight.normal_(0, 0.3, generator=generator)
    features = pooled_features(dbn, images).detach()
    detector = NeighbourDetector(dbn, 3)
    detector.remember(features[:40])
    pca = PCA(min(COMPONENTS, 39)).fit(features[:40].double().numpy())

    def coordinates(rows: torch.Tensor) -> np.ndarray:
        return np.asarray(pca.transform(rows.double().numpy()) / pca.explained_variance_**0.25)

    nearest = NearestNeighbors(n_neighbors=3).fit(coordinates(features[:40]))
    wanted = nearest.kneighbors(coordinates(features[40:]))[0].mean(1)
    np.testing.assert_allclose(detector.scores(images[40:])[0].numpy(), wanted, rtol=1e-3)
    few = torch.tensor([[0.0], [3.0]])
    assert neighbour_distance(torch.tensor([[1.0]]), few, 5).tolist() == [1.5]


def test_settings_name_what_is_wrong_with_them() -> None:
    for changes, message in (
        ({"false_positive_rate": 0.0}, "anomaly.false_positive_rate must be > 0"),
        ({"normal_classes": [-1]}, "anomaly.normal_classes must be positions of classes"),
        ({"neighbours": 0}, "anomaly.neighbours must be >= 1, got 0"),
        ({"table": ""}, "anomaly.table must be a .npz or .csv file"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**changes)

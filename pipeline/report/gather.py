"""Reads the outs of every stage into the report's content."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline import paths
from pipeline.artifacts import Json, read_json, read_table
from pipeline.config.classifier import Study
from pipeline.config.data import Data
from pipeline.config.generators import Augment
from pipeline.config.load import Params
from pipeline.config.monitor import Monitor
from pipeline.data.card import CARD
from pipeline.metrics.verdicts import ARM_NAMES, name_pair
from pipeline.report.applications import read_applications
from pipeline.report.arm_facts import describe_arm
from pipeline.report.audit import audit_facts
from pipeline.report.content import (
    Accuracy,
    ArmScores,
    ArmVerdict,
    Bin,
    Content,
    DataFacts,
    Difference,
    FinalModel,
    GeneratorFacts,
    Picture,
    Reproduction,
    Sweep,
    SweepTrial,
    Verdict,
)
from pipeline.report.files import Files
from pipeline.report.layers import read_layer
from pipeline.report.quality import in_order, quality_scores

GENERATOR_NAMES = {"vae": "Variational autoencoder", "gan": "Generative adversarial network"}
SOURCES = {
    "embedded": "5,000 MNIST digits",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "npz": "images of an npz file",
    "idx": "images of IDX files",
    "image_folder": "a folder of images",
}
SETTINGS = ("lr", "weight_decay", "dropout")


class Gatherer:
    """Reads below `root` and remembers what it looked for and did not find."""

    def __init__(self, root: Path, params: Params) -> None:
        self.root, self.params = root, params
        self.files = Files(root)

    def gather(self, reproduction: Reproduction) -> Content:
        content = Content(
            verdict=self.read_verdict(),
            arms=self.read_arms(),
            generators=self.read_generators(),
            layers=[
                read_layer(self.files, name, layer, self.params.section(Monitor))
                for name, layer in self.params.layers.items()
            ],
            sweep=self.read_sweep(),
            final=self.read_final(),
            applications=read_applications(self.files),
            data=self.read_data(),
            reproduction=reproduction,
            left_out=[],
        )
        return replace(content, left_out=self.files.left_out)

    # --- the verdict

    def read_verdict(self) -> Verdict:
        told = read_json(self.root / paths.EVALUATE / "verdict.json")
        rows = read_table(self.root / paths.EVALUATE / "comparisons.csv")
        differences = [_difference(row, text) for row, text in zip(rows, told["sentences"], strict=True)]
        arms = [
            ArmVerdict(
                arm=entry["arm"],
                name=name_pair(entry["arm"], entry["baseline"]),
                summary=entry["verdict"],
                differences=[
                    row for row in differences if (row.arm, row.baseline) == (entry["arm"], entry["baseline"])
                ],
            )
            for entry in told["arms"]
        ]
        against_scratch = [arm for arm in arms if arm.differences[0].baseline == "scratch"]
        alone = [arm for arm in arms if arm.differences[0].baseline != "scratch"]
        keys = ("headline", "confidence", "negligible", "comparisons", "seeds", "test_images")
        return Verdict(arms=against_scratch, alone=alone[0] if alone else None, **{key: told[key] for key in keys})

    def read_arms(self) -> list[ArmScores]:
        metrics = read_json(self.root / paths.metrics("evaluate"))["arms"]
        rows = read_table(self.root / paths.plots("evaluate") / "budgets.csv")
        study = self.params.section(Study)
        return [
            ArmScores(
                arm=arm,
                name=ARM_NAMES[arm],
                **describe_arm(arm, study),
                accuracies=sorted(
                    (
                        Accuracy(int(row["budget"]), float(row["accuracy"]), _number(row["low"]), _number(row["high"]))
                        for row in rows
                        if row["arm"] == arm
                    ),
                    key=lambda accuracy: accuracy.budget,
                ),
                scores={budget: metrics[arm][str(budget)] for budget in sorted(map(int, metrics[arm]))},
            )
            for arm in dict.fromkeys(row["arm"] for row in rows)
        ]

    def read_final(self) -> FinalModel:
        told = read_json(self.root / paths.EVALUATE / "finetune.json")
        recipe = read_json(self.root / paths.FINETUNE / "recipe.json")
        counts = read_table(self.root / paths.EVALUATE / "confusion.csv")
        classes = list(dict.fromkeys(row["actual"] for row in counts))
        cells = {(row["actual"], row["predicted"]): int(row["count"]) for row in counts}
        reliability: dict[str, list[Bin]] = {}
        for row in read_table(self.root / paths.plots("evaluate") / "reliability.csv"):
            found = Bin(float(row["confidence"]), float(row["accuracy"]), int(row["count"]))
            reliability.setdefault(row["model"], []).append(found)
        return FinalModel(
            arm=told["arm"],
            name=ARM_NAMES[told["arm"]],
            reason=str(recipe.get("reason", "")),
            sentence=told["sentence"],
            scores={"winner": told["winner"], "scratch": told["scratch"]},
            recipe={key: recipe[key] for key in SETTINGS if key in recipe},
            classes=classes,
            confusion=[[cells[actual, predicted] for predicted in classes] for actual in classes],
            recall=[told["recall"][name] for name in classes],
            reliability=reliability,
        )

    # --- what the arms are made of

    def read_generators(self) -> list[GeneratorFacts]:
        wanted = self.params.section(Augment).generators
        for kind in GENERATOR_NAMES:
            if kind not in wanted:
                self.files.left_out.append(f"No {kind.upper()}: augment.generators does not name it.")
        return [self.read_generator(kind) for kind in wanted if self.files.has(paths.synthetic(kind) / "quality.json")]

    def read_generator(self, kind: str) -> GeneratorFacts:
        quality = read_json(self.root / paths.synthetic(kind) / "quality.json")
        card = paths.synthetic(kind) / CARD
        alt = f"Grid of images sampled from the {kind.upper()}, one class in each row."
        return GeneratorFacts(
            kind=kind,
            name=GENERATOR_NAMES[kind],
            sentence=quality.get("sentence", ""),
            samples=self.files.picture(paths.plots(f"augment@{kind}") / "samples.png", alt),
            scores=quality_scores(quality["rows"]),
            audit=audit_facts(read_json(self.root / card)) if self.files.has(card) else None,
        )

    def read_sweep(self) -> Sweep | None:
        if not (self.files.has(paths.TUNE / "best.json") and self.files.has(paths.TUNE / "trials.csv")):
            return None
        rows = read_table(self.root / paths.TUNE / "trials.csv")
        if "arm" not in rows[0]:
            self.files.left_out.append("The sweep was one of another target than the classifier: see out/tune.")
            return None
        trials = [
            SweepTrial(row["arm"], float(row["lr"]), float(row["validation_nll"]), row.get("status") == "completed")
            for row in rows
            if row["validation_nll"]
        ]
        counts = Counter(row.get("status", "completed") for row in rows)
        told = read_json(self.root / paths.TUNE / "best.json")
        best = {
            arm: {key: told[arm][key] for key in in_order(told[arm], SETTINGS)} for arm in in_order(told, ARM_NAMES)
        }
        figures = {
            "parallel_coordinates": "Every trial of “{}”: its settings and validation loss, the best one in colour.",
            "importance": "How much of the variance between the trials of “{}” each setting explains.",
        }
        plots = self.root / paths.plots("tune")
        pictures = [
            Picture(plots / f"{name}-{arm}.svg", alt.format(ARM_NAMES[arm]))
            for arm in best
            for name, alt in figures.items()
            if (plots / f"{name}-{arm}.svg").is_file()
        ]
        return Sweep(best, trials, dict(sorted(counts.items())), pictures)

    def read_data(self) -> DataFacts:
        manifest = read_json(self.root / paths.PREPARED / "manifest.json")
        metrics: Json = read_json(self.root / paths.metrics("prepare"))
        source = manifest["source"] or {}
        alt = "Training images, one class in each row."
        return DataFacts(
            source=SOURCES[source.get("name") or self.params.section(Data).source],
            sha256=source.get("sha256") or "",
            image_shape=tuple(manifest["image_shape"]),
            classes=manifest["class_names"],
            counts={split: metrics[split]["classes"] for split in ("train", "validation", "test") if split in metrics},
            label_budgets=manifest["label_budgets"],
            label_draws=manifest["label_draws"],
            samples=self.files.picture(paths.plots("prepare") / "samples.png", alt),
        )


def _difference(row: Mapping[str, str], sentence: str) -> Difference:
    return Difference(
        arm=row["arm"],
        baseline=row["baseline"],
        name=name_pair(row["arm"], row["baseline"]),
        budget=int(row["budget"]),
        value=float(row["difference"]),
        low=_number(row["low"]),
        high=_number(row["high"]),
        adjusted_p=_number(row["adjusted_p"]),
        verdict=row["verdict"],
        sentence=sentence,
    )


def _number(text: str) -> float | None:
    return float(text) if text else None

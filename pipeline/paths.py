"""Where every artifact lies, relative to the project's root: each path is spelled here and nowhere else."""

from pathlib import Path

OUT = Path("out")
METRICS = Path("metrics")
PLOTS = Path("plots")
WORK = Path(".layerwise")
"""Locks, resume folders and W&B's files: ignored by git, never an out."""
DOWNLOADS = WORK / "downloads"
"""Published image sets, by folder name; kept between runs."""

SWEEPS = WORK / "sweeps"
"""One folder per sweep that somebody ran by hand; kept between runs, never an out."""

PREPARED = OUT / "prepare"
"""Train and validation arrays, label subsets, manifest.json."""
TEST = OUT / "test"
"""The test split, a folder of its own: only `evaluate` depends on it."""
PRETRAINED = OUT / "pretrain"
"""One folder per layer of the DBN."""
SYNTHETIC = OUT / "augment"
"""One folder per generator."""
TUNE = OUT / "tune"
"""best.json, trials.csv."""
STUDY = OUT / "study"
"""trials.csv, models/<arm>-<budget>-<seed>.safetensors."""
FINETUNE = OUT / "finetune"
"""winner.safetensors, scratch.safetensors, recipe.json."""
EVALUATE = OUT / "evaluate"
"""trials.csv, comparisons.csv, confusion.csv, verdict.json."""
APPLICATIONS = OUT / "applications"
"""One folder per application."""
REPORT = Path("report")
"""index.html."""


def pretrained(layer: str) -> Path:
    """Folder with dbn.safetensors: this layer and every layer below it."""
    return PRETRAINED / layer


def generator(name: str) -> Path:
    """Folder with one model per label draw, <draw>.safetensors, and the labels it learned from, labels-<draw>.npy."""
    return OUT / name


def synthetic(name: str) -> Path:
    """Folder with one synthetic set per label draw: images-<draw>.npy, labels-<draw>.npy; quality.json."""
    return SYNTHETIC / name


def application(name: str) -> Path:
    """Folder of an application: its story.json, scores and trained models."""
    return APPLICATIONS / name


def metrics(stage: str) -> Path:
    """The metrics file of a stage; pretrain@conv1 gives metrics/pretrain-conv1.json."""
    return METRICS / f"{stage.replace('@', '-')}.json"


def plots(stage: str) -> Path:
    """The folder of a stage's plots: curves as csv, images as png."""
    return PLOTS / stage.replace("@", "-")

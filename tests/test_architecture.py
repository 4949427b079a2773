"""The contracts that hold the house together, as tests: who may import what, and that dvc.yaml tells the truth."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.config.load import load_params
from pipeline.dvcfile import with_true_deps
from pipeline.stage import NOT_IN_RESULTS, StageSpec

ROOT = Path(__file__).parent.parent
BY_HAND = ("export", "sample")
"""Verbs for people in stages/: nothing in dvc.yaml runs them."""

APPLICATIONS = ("anomaly", "denoise", "represent", "features")
"""Stages that score on test images what was chosen without them."""

LAYERS = [
    ("stages", "cluster"),
    (
        "pipeline.launch",
        "pipeline.tuning",
        "pipeline.training",
        "pipeline.applications",
        "pipeline.report",
        "pipeline.estimators",
        "pipeline.deep_estimators",
        "pipeline.estimator_layers",
        "pipeline.estimator_inputs",
        "pipeline.dbn_estimator",
        "pipeline.stage",
        "pipeline.dvcfile",
    ),
    ("pipeline.metrics", "pipeline.data", "pipeline.models"),
    (
        "pipeline.config",
        "pipeline.paths",
        "pipeline.command",
        "pipeline.artifacts",
        "pipeline.weights",
        "pipeline.seeding",
        "pipeline.row_noise",
        "pipeline.device",
        "pipeline.tracking",
        "pipeline.progress",
        "pipeline.provenance",
        "pipeline.guard",
    ),
]

ONLY_IMPORTERS = {
    "ray": ("pipeline/launch/ray_", "cluster/"),
    "wandb": ("pipeline/tracking.py",),
    "omegaconf": ("pipeline/config/load.py",),
    "ruamel": ("pipeline/dvcfile.py",),
    "dvc": (),
    "pytorch_lightning": ("pipeline/training/",),
    "matplotlib": ("pipeline/report/",),
    "optuna": ("pipeline/launch/ray_",),
    "opacus": ("pipeline/training/accounting.py",),
}


def imports(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def level(module: str) -> int | None:
    """0 for stages, more the deeper; None for a module outside the house."""
    for depth, prefixes in enumerate(LAYERS):
        if any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes):
            return depth
    return None


def upward_imports(files: dict[str, str]) -> list[str]:
    """Imports that point up, as "a -> b". files: source by dotted module."""
    bad = []
    for module, source in files.items():
        depth = level(module)
        assert depth is not None, f"{module} has no floor: add it to LAYERS"
        bad += [
            f"{module} -> {name}" for name in imports(source) if (other := level(name)) is not None and other < depth
        ]
    return bad


def strays(files: dict[str, str]) -> list[str]:
    """Imports of a guarded package outside the module that owns it. files: source by posix path."""
    return [
        f"{file} imports {package}"
        for file, source in files.items()
        for package, owners in ONLY_IMPORTERS.items()
        if any(name.split(".")[0] == package for name in imports(source)) and not file.startswith(owners or ("\0",))
    ]


def own_files() -> dict[str, str]:
    files = [file for top in ("pipeline", "stages", "cluster") for file in (ROOT / top).rglob("*.py")]
    return {file.relative_to(ROOT).as_posix(): file.read_text() for file in files}


def by_module(files: dict[str, str]) -> dict[str, str]:
    return {
        file.removesuffix(".py").replace("/", "."): source
        for file, source in files.items()
        if not file.endswith("__init__.py")
    }


def test_imports_point_down() -> None:
    assert upward_imports(by_module(own_files())) == []


def test_the_import_test_sees_an_import_that_points_up() -> None:
    source = "import pipeline.config.run\ndef late():\n    import pipeline.training.fit\n"
    assert upward_imports({"pipeline.models.vae": source}) == ["pipeline.models.vae -> pipeline.training.fit"]


def test_each_outside_tool_has_one_owner() -> None:
    assert strays(own_files()) == []


def test_the_owner_test_sees_a_stray() -> None:
    assert strays({"pipeline/models/rbm.py": "import ray.tune"}) == ["pipeline/models/rbm.py imports ray"]


def test_init_files_are_empty() -> None:
    assert [file for file, source in own_files().items() if file.endswith("__init__.py") and source] == []


def test_only_evaluate_and_the_applications_read_the_test_split() -> None:
    readers = [
        file
        for file, source in own_files().items()
        if file != "pipeline/data/test_split.py" and any("test_split" in name for name in imports(source))
    ]
    assert set(readers) <= {f"stages/{name}.py" for name in ("evaluate", *APPLICATIONS)}


def test_models_and_metrics_import_neither_lightning_nor_ray_nor_dvc_nor_wandb() -> None:
    names = [
        f"pipeline.{package}.{file.stem}"
        for package in ("models", "metrics")
        for file in (ROOT / "pipeline" / package).glob("*.py")
        if file.stem != "__init__"
    ]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print([m for m in ('pytorch_lightning', 'ray', 'dvc', 'wandb', 'omegaconf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def specs() -> dict[str, StageSpec]:
    """What every stage declares, by DVC's name."""
    params = load_params(ROOT / "params.yaml")
    found: list[StageSpec] = []
    for file in sorted((ROOT / "stages").glob("[a-z]*.py")):
        if file.stem in BY_HAND:
            continue
        module = importlib.import_module(f"stages.{file.stem}")
        if file.stem == "pretrain":
            found += [module.spec(name, layer.below) for name, layer in params.layers.items()]
        elif file.stem == "augment":
            found += [module.spec(name) for name in params.sections["augment"].generators]
        else:
            found.append(module.SPEC)
    return {spec.name: spec for spec in found}


def dvc_stages(root: Path) -> dict[str, dict[str, set[str]]]:
    """deps (without code), params and outs of every stage, as DVC itself resolves dvc.yaml."""
    code = (
        "import json\nfrom dvc.repo import Repo\n"
        "from dvc.dependency import ParamsDependency\n"
        "out = {}\n"
        "for s in Repo().index.stages:\n"
        "    params = sorted(k for d in s.deps if isinstance(d, ParamsDependency) for k in d.params)\n"
        "    deps = sorted(d.def_path for d in s.deps if not isinstance(d, ParamsDependency))\n"
        "    out[s.addressing] = {'params': params, 'deps': deps, 'outs': sorted(o.def_path for o in s.outs)}\n"
        "print(json.dumps(out))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return {name: {key: set(value) for key, value in stage.items()} for name, stage in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def resolved() -> dict[str, dict[str, set[str]]]:
    return dvc_stages(ROOT)


def test_every_stage_file_is_one_stage_of_dvc_yaml(resolved: dict[str, dict[str, set[str]]]) -> None:
    assert set(resolved) == set(specs())


def covers(dependency: str, path: str) -> bool:
    return path == dependency or path.startswith(dependency + "/")


def test_dvc_yaml_declares_what_the_stages_declare(resolved: dict[str, dict[str, set[str]]]) -> None:
    for name, spec in specs().items():
        stage = resolved[name]
        data = {dep for dep in stage["deps"] if not dep.endswith(".py")} - {"params.yaml", "data"}
        inputs = {path.as_posix() for path in spec.inputs}
        assert inputs == data, f"{name}: reads {inputs}, dvc.yaml lists {data}"
        assert set(spec.params) == stage["params"], f"{name}: uses {spec.params}, dvc.yaml lists {stage['params']}"
        outs = {path.as_posix() for path in spec.outputs} | {paths.metrics(name).as_posix()}
        assert outs | {"metrics/report.json"} >= stage["outs"] >= {path.as_posix() for path in spec.outputs}


def test_deps_of_dvc_yaml_are_the_import_closures() -> None:
    tree = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    assert with_true_deps(tree, ROOT) == [], "run `make deps`"


def test_the_deps_test_sees_a_missing_and_a_superfluous_file() -> None:
    tree = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    deps = tree["stages"]["prepare"]["deps"]
    deps.remove("pipeline/data/splits.py")
    deps.append("pipeline/models/vae.py")
    assert with_true_deps(tree, ROOT) == [
        "prepare: pipeline/data/splits.py is missing",
        "prepare: pipeline/models/vae.py is listed but never imported",
    ]


def test_every_key_of_run_that_a_stage_reads_is_declared() -> None:
    """`run.launch` and its like change no result and are not declared; any other key read must be."""
    for name, spec in specs().items():
        source = (ROOT / "stages" / f"{name.split('@')[0]}.py").read_text()
        read = {
            node.attr
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute)
            and (
                (isinstance(node.value, ast.Name) and node.value.id == "run")
                or (isinstance(node.value, ast.Attribute) and node.value.attr == "run")
            )
        }
        declared = {param.removeprefix("run.") for param in spec.params if param.startswith("run.")}
        assert read - set(NOT_IN_RESULTS) <= declared, f"{name} reads run.{read - declared}"

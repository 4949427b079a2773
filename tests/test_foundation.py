"""Seeds, weights, provenance and progress: what every stage stands on."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.artifacts import hash_tree, read_table, write_json, write_table
from pipeline.progress import Progress
from pipeline.provenance import hash_inputs, import_closure
from pipeline.seeding import derive_seed, make_generator, make_numpy_rng
from pipeline.weights import load_weights, save_weights
from tests.wandb_log import read_records

ROOT = Path(__file__).parent.parent


def test_a_seed_is_the_same_in_every_process_and_release() -> None:
    assert derive_seed(0, "dbn", 1) == 8006143054376954337


def test_a_seed_depends_on_every_part_its_order_and_its_type() -> None:
    seeds = [derive_seed(0, "a", "b"), derive_seed(0, "b", "a"), derive_seed(0, "ab"), derive_seed(0, "a", 1)]
    seeds += [derive_seed(0, "a", "1"), derive_seed(1, "a", "b")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_neighbouring_steps_are_unrelated() -> None:
    draws = torch.stack([torch.rand(2000, generator=make_generator(0, "step", step)) for step in range(4)])
    correlation = torch.corrcoef(draws) - torch.eye(4)
    assert float(correlation.abs().max()) < 0.1
    assert make_numpy_rng(0, "a").random() == make_numpy_rng(0, "a").random()


def test_weights_come_back_as_they_were_and_with_stable_bytes(tmp_path: Path) -> None:
    state = {"b": torch.arange(6.0).view(2, 3).t(), "a": torch.ones(2, dtype=torch.int64)}
    for name in ("one", "two"):
        save_weights(tmp_path / f"{name}.safetensors", state, kind="toy", config={"size": 3})
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    loaded, config = load_weights(tmp_path / "one.safetensors", kind="toy")
    assert config == {"size": 3}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_of_another_kind_missing_or_corrupt_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"model.safetensors does not exist: run the stage"):
        load_weights(path, kind="vae")
    save_weights(path, {"a": torch.ones(3)}, kind="vae", config={})
    with pytest.raises(ValueError, match="holds a 'vae', not a 'gan'"):
        load_weights(path, kind="gan")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"does not match the sha256 in model.json"):
        load_weights(path, kind="vae")


def test_json_refuses_nan_and_leaves_no_half_written_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_table_keeps_every_digit(tmp_path: Path) -> None:
    rows = [{"x": 0.1 + 0.2, "n": 3, "name": "a,b"}, {"x": 1e-300, "n": 4, "name": ""}]
    write_table(tmp_path / "t.csv", rows)
    read = read_table(tmp_path / "t.csv")
    assert [float(row["x"]) for row in read] == [row["x"] for row in rows]
    assert [row["name"] for row in read] == ["a,b", ""]
    with pytest.raises(ValueError, match="differ from the first row's"):
        write_table(tmp_path / "t.csv", [{"a": 1}, {"b": 1}])


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = hash_tree(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = hash_tree(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, hash_tree(tmp_path)}) == 3


def test_the_import_closure_follows_every_import_and_leaves_empty_files_out(tmp_path: Path) -> None:
    files = {
        "stages/__init__.py": "",
        "stages/a.py": "import torch\nfrom pipeline.x import y\ndef f():\n    import pipeline.late\n",
        "pipeline/__init__.py": "",
        "pipeline/x/__init__.py": "",
        "pipeline/x/y.py": "from pipeline.z import name\n",
        "pipeline/z.py": "name = 1\n",
        "pipeline/late.py": "x = 1\n",
        "pipeline/other.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    closure = [path.as_posix() for path in import_closure("stages.a", tmp_path)]
    assert closure == ["pipeline/late.py", "pipeline/x/y.py", "pipeline/z.py", "stages/a.py"]


def test_the_input_hash_sees_parameters_inputs_and_code(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("1")
    (tmp_path / "code.py").write_text("1")
    arguments = ({"a": 1}, [Path("in")], [Path("code.py")], tmp_path)
    hashes = {hash_inputs(*arguments), hash_inputs({"a": 2}, *arguments[1:])}
    (tmp_path / "in").write_text("2")
    hashes.add(hash_inputs(*arguments))
    (tmp_path / "code.py").write_text("2")
    hashes.add(hash_inputs(*arguments))
    assert len(hashes) == 4


def test_progress_in_a_log_file_is_plain_lines_with_an_eta(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 20.0, 20.0, 60.0, 60.0, 60.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(clock))
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with Progress(10, "vae") as progress:
        progress.update(2, loss=0.123456)
        progress.update(6, loss=0.1)
    assert log.getvalue().splitlines() == [
        "vae: 2/10  loss 0.1235",
        "vae: 6/10, about 60 s left  loss 0.1",
    ]


@pytest.mark.slow
def test_an_offline_run_can_be_read_back(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.tracking import start_tracking\n"
        "t = start_tracking('offline', stage='vae', group='g', config={'lr': 1}, folder=Path(sys.argv[1]))\n"
        "[t.log({'loss': 1 / (i + 1)}, i) for i in range(5)]\nt.finish({'elbo': -90.0}, 0)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    records = list(read_records(next(tmp_path.rglob("*.wandb"))))
    items = [item for record in records for item in record.history.item]
    losses = [json.loads(item.value_json) for item in items if "loss" in (item.key, *item.nested_key)]
    assert {record.run.run_group for record in records if record.HasField("run")} == {"g"}
    assert np.allclose(losses, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])

"""The stage context, run as DVC runs it: in processes of its own, in a project folder of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A stage in six steps that remembers each in its work folder and can be told to dawdle or fail.
DEMO = """
import os, sys, time
from pathlib import Path
from pipeline import paths
from pipeline.config.generators import Vae
from pipeline.stage import Stage, StageSpec, run_stage

SPEC = StageSpec("demo", params=("run.seed", "vae"), inputs=(Path("input"),), outputs=(Path("out/demo"),))

def demo(stage: Stage) -> None:
    latent_dim = stage.section(Vae).latent_dim
    out = stage.output(Path("out/demo"))
    for number in range(6):
        piece = stage.work / f"piece-{number}"
        if not piece.exists():
            stage.say(f"computing {number}")
            time.sleep(float(os.environ.get("DAWDLE", "0")))
            piece.write_text(str(number * latent_dim))
    (out / "result").write_text(" ".join((stage.work / f"piece-{n}").read_text() for n in range(6)))
    match os.environ.get("FAIL"):
        case "value": raise ValueError("demo.key must be > 0, got -1: set it in params.yaml")
        case "bug": raise KeyError("a bug")
        case "edit": Path("params.yaml").write_text(Path("params.yaml").read_text().replace("seed: 0", "seed: 1"))
    stage.write_metrics({"count": 6})

if __name__ == "__main__":
    sys.exit(run_stage(SPEC, demo))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").touch()
    (tmp_path / "stages" / "demo.py").write_text(DEMO)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "data").write_text("1")
    return tmp_path


def start(project: Path, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stages.demo"]
    return subprocess.Popen(
        command,
        cwd=project,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(project: Path, **environment: str) -> tuple[int, str, str]:
    process = start(project, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def piece(project: Path, number: int) -> Path | None:
    return next((project / ".layerwise" / "work" / "demo").glob(f"*/piece-{number}"), None)


def wait_for_piece(project: Path, number: int) -> None:
    deadline = time.monotonic() + 30
    while piece(project, number) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stage_publishes_its_outs_and_metrics_and_clears_its_work(project: Path) -> None:
    code, _, err = run(project)
    assert (code, err) == (0, "")
    assert (project / "out/demo/result").read_text() == "0 8 16 24 32 40"
    assert (project / "metrics/demo.json").read_text() == '{\n  "count": 6\n}\n'
    assert not (project / ".layerwise" / "work" / "demo").exists()


def test_a_killed_stage_goes_on_where_it_was_and_ends_with_the_same_result(project: Path) -> None:
    process = start(project, DAWDLE="0.3")
    wait_for_piece(project, 2)
    process.kill()
    process.communicate()
    assert not (project / "out/demo").exists()
    code, out, _ = run(project)
    assert code == 0
    assert "computing 2" not in out
    assert "computing 5" in out
    assert (project / "out/demo/result").read_text() == "0 8 16 24 32 40"


def test_work_of_other_parameters_is_not_taken_up(project: Path) -> None:
    process = start(project, DAWDLE="0.3")
    wait_for_piece(project, 1)
    process.kill()
    process.communicate()
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("latent_dim: 8", "latent_dim: 7"))
    code, out, _ = run(project)
    assert code == 0
    assert "computing 0" in out
    assert (project / "out/demo/result").read_text() == "0 7 14 21 28 35"


def test_a_second_writer_is_refused_by_name(project: Path) -> None:
    first = start(project, DAWDLE="0.5")
    wait_for_piece(project, 0)
    code, _, err = run(project)
    first.kill()
    first.communicate()
    assert code == 1
    assert f"stage demo is already running here (process {first.pid})" in err


def test_an_error_a_person_can_fix_is_one_message_without_traceback_and_without_outs(project: Path) -> None:
    code, _, err = run(project, FAIL="value")
    assert code == 1
    assert "demo: demo.key must be > 0, got -1: set it in params.yaml" in err
    assert "Traceback" not in err
    assert not (project / "out").exists()
    assert "Traceback" in (project / ".layerwise/errors/demo.log").read_text()


def test_a_bug_keeps_its_traceback(project: Path) -> None:
    code, _, err = run(project, FAIL="bug")
    assert code != 0
    assert "Traceback" in err


def test_a_failed_run_leaves_the_last_good_out_untouched(project: Path) -> None:
    assert run(project)[0] == 0
    assert run(project, FAIL="value")[0] == 1
    assert (project / "out/demo/result").read_text() == "0 8 16 24 32 40"


def test_parameters_edited_while_a_stage_runs_make_it_fail(project: Path) -> None:
    code, _, err = run(project, FAIL="edit")
    assert code == 1
    assert "changed while it ran" in err
    assert not (project / "out").exists()


def test_a_missing_input_names_itself_and_the_remedy(project: Path) -> None:
    shutil.rmtree(project / "input")
    code, _, err = run(project)
    assert code == 1
    assert "input does not exist: run `dvc repro`" in err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watching the parent needs Linux")
@pytest.mark.parametrize("shell_between", [False, True])
def test_a_killed_dvc_takes_its_stage_with_it(project: Path, shell_between: bool) -> None:
    command = f"{sys.executable} -m stages.demo"
    command = f"{command}; true" if shell_between else f"exec {command}"
    (project / "dvc").write_text(f"import subprocess\nsubprocess.run({command!r}, shell=True)\n")
    dvc = subprocess.Popen(
        [sys.executable, "dvc"], cwd=project, env={**os.environ, "DAWDLE": "0.5"}, stdout=subprocess.DEVNULL
    )
    wait_for_piece(project, 0)
    holder = int((project / ".layerwise/locks/demo").read_text())
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{holder}/cmdline").exists() and Path(f"/proc/{holder}/cmdline").read_text():
        assert time.monotonic() < deadline, "the stage outlived dvc"
        time.sleep(0.02)

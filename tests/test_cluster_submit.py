"""Submission: what travels, what is refused before it does, and results that come home unchanged."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from cluster import slurm_jobs
from cluster.letter import FOLDERS, Letter, hash_lock, lines_for_people, open_letter, read_letter, write_letter
from cluster.local import LocalCluster
from cluster.shipment import Remote, check, default_remote, list_files, pack
from cluster.state import read_states
from cluster.submit import bring_home, locked_stages, main
from cluster.targets import Target, load_target

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
AWAY = Target(name="away", kind="ray", address="http://127.0.0.1:8265")
NEAR = Target(name="near", kind="local", shares_folders=True)

USES_THE_CLUSTER = """
import os, sys
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from pipeline.launch.ray_session import ADDRESS_VARIABLE, joined_ray, local_ray

def where():
    import pipeline.launch.launcher
    return ray.get_runtime_context().get_node_id(), pipeline.launch.launcher.__file__

with joined_ray(os.environ[ADDRESS_VARIABLE]):
    remote = ray.remote(where)
    nodes = [node["NodeID"] for node in ray.nodes()]
    pinned = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    found = ray.get([remote.options(scheduling_strategy=strategy).remote() for strategy in pinned])
    print("nodes used:", len({node for node, _ in found}))
    print("code from the package:", all("working_dir_files" in file for _, file in found))
with local_ray(1):
    print("a Ray of its own answers", ray.get(ray.remote(lambda: 42).remote()))
sys.exit(7)
"""


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def make_checkout(folder: Path, store: Path) -> Path:
    """A copy of this project as somebody would clone it, with a folder as DVC remote."""
    for file in list_files(ROOT):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, folder / file)
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        assert run(["git", *command], folder).returncode == 0
    assert run(["dvc", "remote", "add", "-d", "store", str(store)], folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[LocalCluster]:
    state_folder = home / ".layerwise/cluster"
    with LocalCluster(nodes=2, cpus=1, dashboard=True, state_folder=state_folder) as cluster:
        yield cluster


@pytest.mark.ray
@pytest.mark.slow
def test_results_are_at_home_what_they_were_on_the_cluster(home: Path, cluster: LocalCluster) -> None:
    params = (home / "params.yaml").read_bytes()
    done = run([sys.executable, "-m", "cluster.submit", "local", "--no-pull", "--", "dvc", "repro", "prepare"], home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3500 train, 500 validation, 1000 test images" in done.stdout
    assert "layerwise results" not in done.stdout
    assert (home / "params.yaml").read_bytes() == params
    assert list(yaml.safe_load((home / "dvc.lock").read_text())["stages"]) == ["prepare"]
    assert (home / "metrics/prepare.json").is_file()
    assert not (home / "out/prepare").exists()
    pulled = run(["dvc", "pull", "prepare"], home)
    assert pulled.returncode == 0, pulled.stderr
    assert "up to date" in run(["dvc", "status", "prepare"], home).stdout
    assert "didn't change, skipping" in run(["dvc", "repro", "prepare"], home).stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_uses_every_node_hands_its_exit_code_home_and_shows_no_token(home: Path, cluster: LocalCluster) -> None:
    (home / "uses_the_cluster.py").write_text(USES_THE_CLUSTER)  # untracked, and sent
    done = run([sys.executable, "-m", "cluster.submit", "local", "--", "python", "uses_the_cluster.py"], home)
    assert done.returncode == 7, done.stdout + done.stderr
    assert "nodes used: 2" in done.stdout
    assert "code from the package: True" in done.stdout
    assert "a Ray of its own answers 42" in done.stdout

    token_file = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"])
    token = token_file.read_bytes()
    written = [file for file in token_file.parent.rglob("*") if file.is_file() and file != token_file]
    assert any(file.name.startswith("job-driver-raysubmit") for file in written)
    assert not [file for file in written if token in file.read_bytes()]
    assert token.decode() not in done.stdout + done.stderr
    described = run([sys.executable, "-c", DESCRIBE_JOBS, cluster.dashboard_url, str(token_file)], home)
    assert "cluster.remote" in described.stdout, described.stderr
    assert token.decode() not in described.stdout


DESCRIBE_JOBS = """
import json, os, sys, urllib.request
headers = {"Authorization": "Bearer " + open(sys.argv[2]).read()}
request = urllib.request.Request(sys.argv[1] + "/api/jobs/", headers=headers)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


@pytest.mark.ray
@pytest.mark.slow
def test_the_dashboard_refuses_another_token(home: Path, cluster: LocalCluster, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.write_text("b" * 64)
    command = ["env", f"RAY_AUTH_TOKEN_PATH={other}", sys.executable, "-m", "cluster.submit", cluster.dashboard_url]
    done = run([*command, "--", "true"], home)
    assert done.returncode == 2
    assert "is a folder of this machine" in done.stderr, "an address shares no folders with us"
    code = (
        "from pathlib import Path\nfrom cluster import ray_jobs\nfrom cluster.targets import load_target\n"
        f"ray_jobs.follow(load_target({cluster.dashboard_url!r}), 'job')"
    )
    done = run(["env", f"RAY_AUTH_TOKEN_PATH={other}", sys.executable, "-c", code], home)
    assert "no Ray dashboard answers" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr


@pytest.mark.slow
def test_a_slurm_job_sends_its_results_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_checkout(tmp_path / "home", tmp_path / "store")
    stand_in = tmp_path / "bin/sbatch"
    stand_in.parent.mkdir()
    stand_in.write_text(SBATCH)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(stand_in.parent), str(BIN), os.environ["PATH"]]))
    target = Target(name="slurm", kind="slurm", folder=str(tmp_path / "jobs"), shares_folders=True)
    archive = tmp_path / "project.zip"
    pack(home, archive)
    remote = default_remote(home)
    runner = ["python", "-m", "cluster.remote", "--remote", remote.name, "--url", remote.url, "--in-place", "--"]
    log, returncode = slurm_jobs.run_job(target, archive, [*runner, "dvc", "repro", "prepare"])
    assert returncode == 0, log
    assert "3500 train" in capsys.readouterr().out
    bring_home(home, log, pull=True)
    assert "up to date" in run(["dvc", "status", "prepare"], home).stdout
    assert slurm_jobs.run_job(target, archive, [*runner, "bash", "-c", "exit 7"])[1] == 7
    log, returncode = slurm_jobs.run_job(target, archive, [*runner, "no-such-program"])
    assert returncode == 127
    assert "no-such-program is no program on this cluster" in log


SBATCH = """#!/bin/bash
# Stands in for sbatch --wait --chdir=FOLDER --output=LOG SCRIPT COMMAND...
[ "$1" = --wait ] && [ -f "$4" ] || exit 64
cd "${2#--chdir=}" && log="${3#--output=}" && shift 4
"$@" > "$log" 2>&1
"""


def test_what_git_ignores_and_where_dvc_keeps_credentials_stay_here(tmp_path: Path) -> None:
    assert run(["git", "init", "-q"], tmp_path).returncode == 0
    for name in ("tracked.py", "untracked.py", "ignored.env", ".dvc/config", ".dvc/config.local", "gone.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("*.env\n")
    assert run(["git", "add", "tracked.py", "gone.py", ".dvc"], tmp_path).returncode == 0
    (tmp_path / "gone.py").unlink()
    assert {file.as_posix() for file in list_files(tmp_path)} == {
        "tracked.py",
        "untracked.py",
        ".gitignore",
        ".dvc/config",
    }


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no git repository"):
        list_files(tmp_path)


def test_too_much_data_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["git", "init", "-q"], tmp_path).returncode == 0
    (tmp_path / "images.npz").write_bytes(bytes(2 * 2**20))
    monkeypatch.setattr("cluster.shipment.MAX_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"2 MiB are too much to send, images\.npz has 2"):
        pack(tmp_path, tmp_path / "a.zip")


def test_without_a_default_remote_nothing_is_sent(tmp_path: Path) -> None:
    assert run(["git", "init", "-q"], tmp_path).returncode == 0
    assert run(["dvc", "init", "-q"], tmp_path).returncode == 0
    with pytest.raises(ValueError, match="dvc remote add -d store"):
        default_remote(tmp_path)


def test_a_relative_remote_is_the_folder_it_means_here(tmp_path: Path) -> None:
    assert run(["git", "init", "-q"], tmp_path).returncode == 0
    assert run(["dvc", "init", "-q"], tmp_path).returncode == 0
    assert run(["dvc", "remote", "add", "-d", "store", "../store"], tmp_path).returncode == 0
    assert default_remote(tmp_path) == Remote("store", str(tmp_path.parent / "store"))


@pytest.mark.parametrize(
    ("target", "url", "message"),
    [
        (AWAY, "/some/folder", "is a folder of this machine, which the nodes of away do not see"),
        (NEAR, "https://me:secret@host/store", "holds credentials"),
        (NEAR, "https://host/store?token=secret", "holds credentials"),
    ],
)
def test_remotes_that_fail_or_tell_secrets_are_refused(target: Target, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check(ROOT, target, Remote("store", url))
    assert "secret" not in str(error.value)


def test_secrets_in_the_config_that_is_sent_are_refused_by_their_key(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(
        "['remote \"store\"']\n    url = s3://bucket\n    secret_access_key = abcdef\n"
    )
    with pytest.raises(ValueError, match=r"secret_access_key in \.dvc/config would be sent along") as error:
        check(tmp_path, NEAR, Remote("store", "s3://bucket"))
    assert "abcdef" not in str(error.value)


def test_several_workers_need_storage_that_their_nodes_share(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  workers: 1\n", "  workers: 2\n"))
    with pytest.raises(ValueError, match=r"run\.storage \.layerwise/storage is a folder"):
        check(tmp_path, AWAY, Remote("store", "s3://bucket/store"))
    check(tmp_path, NEAR, Remote("store", "/some/folder"))
    check(ROOT, AWAY, Remote("store", "s3://bucket/store"))


def test_every_result_that_dvc_does_not_cache_is_in_the_letter() -> None:
    uncached = set()
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        body = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            for out in body.get(kind, []):
                uncached |= {path for path, how in out.items() if not how["cache"]} if isinstance(out, dict) else set()
    assert uncached
    assert {path.split("/")[0] for path in uncached} == set(FOLDERS)


def make_results(root: Path) -> None:
    (root / "metrics").mkdir()
    (root / "metrics/prepare.json").write_bytes(b'{"a": 1}\n')
    (root / "dvc.lock").write_bytes(b"schema: '2.0'\nstages:\n  prepare: {}\n")


def test_letters_arrive_as_they_were_sent_amid_other_lines(tmp_path: Path) -> None:
    make_results(tmp_path)
    text = write_letter(tmp_path, None)
    log = f"before\n{text}\nafter\n"
    letter = read_letter(log)
    assert letter is not None
    assert letter.files == {
        "dvc.lock": (tmp_path / "dvc.lock").read_bytes(),
        "metrics/prepare.json": b'{"a": 1}\n',
    }
    pieces = [log[start : start + 7] for start in range(0, len(log), 7)]
    assert list(lines_for_people(pieces)) == ["before", "after"]
    assert read_letter("no results\n") is None
    assert locked_stages(letter.files["dvc.lock"]) == ["prepare"]


def test_a_damaged_letter_is_refused(tmp_path: Path) -> None:
    make_results(tmp_path)
    lines = write_letter(tmp_path, None).split("\n")
    lines[2] = lines[2][:-4] + "AAAA"
    with pytest.raises(ValueError, match="damaged"):
        read_letter("\n".join(lines))


@pytest.mark.parametrize("path", ["../evil", "metrics/../../evil", "pipeline/stage.py", "/etc/passwd", "metrics"])
def test_a_letter_can_only_bring_results(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_results(tmp_path)
    monkeypatch.setattr(Path, "as_posix", lambda self: path)
    text = write_letter(tmp_path, None)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="which is no result of this pipeline"):
        read_letter(text)


def test_a_lock_that_changed_at_home_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_bytes(b"mine")
    sent = hash_lock(tmp_path)
    open_letter(Letter(sent, {"dvc.lock": b"theirs"}), tmp_path)
    assert (tmp_path / "dvc.lock").read_bytes() == b"theirs"
    assert open_letter(Letter(sent, {"dvc.lock": b"theirs"}), tmp_path) == []
    with pytest.raises(ValueError, match=r"dvc\.lock changed here while the job ran"):
        open_letter(Letter(sent, {"dvc.lock": b"newer"}), tmp_path)
    (tmp_path / "dvc.lock").unlink()
    with pytest.raises(ValueError, match=r"dvc\.lock changed here while the job ran"):
        open_letter(Letter(sent, {"dvc.lock": b"newer"}), tmp_path)


def test_results_in_a_saved_log_come_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here, log = tmp_path / "there", tmp_path / "here", tmp_path / "job.log"
    there.mkdir()
    here.mkdir()
    make_results(there)
    log.write_text(f"before\n{write_letter(there, None)}\nafter\n")
    monkeypatch.chdir(here)
    assert main(["kuberay", "--log", str(log), "--no-pull"]) == 0
    assert (here / "dvc.lock").read_bytes() == (there / "dvc.lock").read_bytes()
    assert (here / "metrics/prepare.json").read_bytes() == b'{"a": 1}\n'


def test_a_slurm_job_is_not_attached_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slurm", "--attach", "17"]) == 2
    assert "give its log" in capsys.readouterr().err


def test_targets_are_checked(tmp_path: Path) -> None:
    assert load_target("local").kind == "local"
    assert load_target("http://host:8265").address == "http://host:8265"
    assert all(load_target(name) for name in ("aws", "gcp", "kuberay", "slurm"))
    with pytest.raises(ValueError, match=r"moon is no target: targets\.toml has local, aws, gcp, kuberay, slurm"):
        load_target("moon")
    file = tmp_path / "targets.toml"
    file.write_text('[a]\nkind = "ray"\naddres = "http://h:1"\n[b]\nkind = "ray"\naddress = "https://me:pw@h:1"\n')
    with pytest.raises(ValueError, match=r"a\.addres in targets\.toml is no setting"):
        load_target("a", file)
    with pytest.raises(ValueError, match="must hold no credentials"):
        load_target("b", file)


def test_no_cluster_is_said_before_anything_is_sent(home: Path) -> None:
    if read_states(home / ".layerwise/cluster"):
        pytest.skip("another test's cluster is up")
    done = run([sys.executable, "-m", "cluster.submit", "local"], home)
    assert done.returncode == 2
    assert "python -m cluster.local up --dashboard" in done.stderr


def test_the_token_file_of_a_cluster_is_no_part_of_the_project() -> None:
    cluster = LocalCluster()
    try:
        assert not Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).is_relative_to(ROOT)
        assert not stat.S_IMODE(Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).parent.stat().st_mode) & 0o077
    finally:
        cluster.stop()

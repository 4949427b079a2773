"""The cluster files: valid for those who read them, versions as pinned, a token everywhere, dashboards on loopback."""

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from tests.kuberay_schema import FILE as KUBERAY_SCHEMA

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
CLOUDS = ("aws", "gcp")
KUBERAY = ("kuberay-cluster", "kuberay-job")
SLURM = CLUSTER / "slurm.sh"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return content


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / f"{name}.yaml").read_text()))


def ray_cluster(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = documents(name)[0]["spec"]
    inner: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return inner


def start_commands(name: str) -> list[str]:
    """Those that start Ray, on the head and on workers."""
    config = read(name)
    return [config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]]


def slurm_lines() -> str:
    """The script with its continued lines joined, without comments."""
    text = re.sub(r"\\\n\s*", "", SLURM.read_text())
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return str(version)


def problems_of_kuberay(document: dict[str, Any]) -> list[str]:
    schema = json.loads(KUBERAY_SCHEMA.read_text())
    validator = jsonschema.Draft202012Validator({"$defs": schema["$defs"], **schema["kinds"][document["kind"]]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document["spec"])]


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_up_accepts_the_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read(name))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        validate_config(prepare_config(read(name)) | {"idle_timeout_minuts": 5})


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_and_may_be_none_while_the_head_is_on_demand(name: str) -> None:
    types = read(name)["available_node_types"]
    spot = {
        node: config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or any(choice.get("preemptible") for choice in config.get("scheduling", []))
        for node, config in ((node, kind["node_config"]) for node, kind in types.items())
    }
    assert spot == {"head": False, "worker": True}
    assert types["worker"]["min_workers"] == 0


@pytest.mark.parametrize("name", CLOUDS)
def test_what_ray_up_sends_along_exists(name: str) -> None:
    mounts = read(name)["file_mounts"]
    secret = [source for source in mounts.values() if source.startswith("~")]
    assert secret == ["~/.ray/auth_token"]
    assert all((ROOT / source).is_file() for source in mounts.values() if source not in secret)


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_accepts_the_file(name: str) -> None:
    document = documents(name)[0]
    assert document["apiVersion"] == "ray.io/v1"
    assert problems_of_kuberay(document) == []


def test_the_kuberay_test_sees_misspelt_misplaced_and_mistyped_fields() -> None:
    document = documents("kuberay-cluster")[0]
    document["spec"]["headGroupSpec"]["rayStartParam"] = {}
    document["spec"]["workerGroupSpecs"][0]["maxReplicas"] = "4"
    document["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["img"] = "x"
    problems = "\n".join(problems_of_kuberay(document))
    assert "'rayStartParam' was unexpected" in problems
    assert "'4' is not of type 'integer'" in problems
    assert "'img' was unexpected" in problems


def test_versions_are_those_of_the_constraints() -> None:
    ray, python = pinned("ray"), "py311"
    assert importlib.metadata.version("ray") == ray
    assert {read(name)["docker"]["image"] for name in CLOUDS} == {f"rayproject/ray:{ray}-{python}-cpu"}
    assert f"FROM rayproject/ray:{ray}-{python}-cpu\n" in (CLUSTER / "Dockerfile").read_text()
    assert {ray_cluster(name)["rayVersion"] for name in KUBERAY} == {ray}
    installs = [line for name in CLOUDS for line in read(name)["setup_commands"] if "pip install" in line]
    installs += re.findall(r"^RUN (pip install.*)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert len(installs) == 3
    assert all("--constraint" in line and "constraints.txt" in line for line in installs)


@pytest.mark.parametrize("name", CLOUDS)
def test_every_ray_start_of_a_cloud_asks_for_a_token_and_shows_its_dashboard_to_nobody(name: str) -> None:
    for command in start_commands(name):
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_AUTH_TOKEN_PATH=/home/ray/.ray/auth_token" in command
        assert "--dashboard-host=127.0.0.1" in command
        assert_options_exist(command[command.index("ray start") :])


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_asks_for_a_token(name: str) -> None:
    assert ray_cluster(name)["authOptions"] == {"mode": "token"}


def test_kuberay_shows_the_dashboard_to_nobody_or_to_the_operator_alone() -> None:
    assert ray_cluster("kuberay-cluster")["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    job, policy = documents("kuberay-job")
    assert job["spec"]["submissionMode"] == "SidecarMode", "the submitter needs no way in"
    cluster = job["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    own = {"matchLabels": {"app": "layerwise"}}
    assert all(template["metadata"]["labels"] == own["matchLabels"] for template in templates)
    assert policy["kind"] == "NetworkPolicy"
    assert policy["spec"]["podSelector"] == own
    among_themselves, operator = policy["spec"]["ingress"]
    assert among_themselves == {"from": [{"podSelector": own}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert operator["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}


def test_slurm_asks_for_a_token_and_shows_the_dashboard_to_nobody() -> None:
    lines = slurm_lines()
    assert "export RAY_AUTH_MODE=token" in lines
    (command,) = re.findall(r"ray symmetric-run.*", lines)
    assert "--dashboard-host=127.0.0.1" in command
    assert_options_exist(command.replace("--address", "").replace("--min-nodes", ""))


def assert_options_exist(command: str) -> None:
    """Of `ray start`; a misspelt one would fail when the machines are already paid for."""
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    used = set(re.findall(r"--[a-z][a-z-]+", command.split(" -- ")[0]))
    assert used <= known, used - known


def test_no_file_holds_a_secret() -> None:
    texts = [file.read_text() for file in CLUSTER.iterdir() if file.suffix in (".yaml", ".sh", ".toml")]
    assert len(texts) == 6
    for text in texts:
        assert not re.search(r"[0-9a-f]{32}|AKIA[0-9A-Z]{16}|-----BEGIN", text)
        assert not re.search(r"RAY_AUTH_TOKEN=\S", text)


def test_the_slurm_script_parses() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    assert os.access(SLURM, os.X_OK)


def test_shellcheck_finds_nothing_in_the_slurm_script() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not (shellcheck := shutil.which("shellcheck", path=path)):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, str(SLURM)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


SRUN = """#!/bin/bash
# Stands in for srun: answers for the head's address, records what it would start.
for argument in "$@"; do
    if [ "$argument" = hostname ]; then echo "fe80::1 127.0.1.1 10.1.2.3 10.9.9.9"; exit; fi
done
printf '%s\\n' "$@" >"$RECORD/arguments"
env >"$RECORD/environment"
stat --format=%a "$RAY_AUTH_TOKEN_PATH" >"$RECORD/mode"
cp "$RAY_AUTH_TOKEN_PATH" "$RECORD/token"
exit 7
"""
SCONTROL = """#!/bin/bash
# Stands in for scontrol show hostnames.
[ "$*" = "show hostnames node[3-4]" ] && printf 'node3\\nnode4\\n'
"""


@pytest.mark.parametrize("command", [("dvc", "repro", "--set", "a b"), ()])
def test_slurm_starts_one_ray_on_every_node_and_the_command_on_the_first(tmp_path: Path, command: tuple[str]) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_NUM_NODES": "2"}
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    stray = {"RAY_AUTH_TOKEN": "another", "RAY_ADDRESS": "elsewhere:1"}
    environment = os.environ | job | stray | {"SLURM_CPUS_PER_TASK": "8", "RECORD": str(tmp_path), "PATH": path}
    done = subprocess.run(
        [str(SLURM), *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, f"srun's exit code, not {done.returncode}: {done.stderr}"

    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert shlex.join(arguments) == shlex.join(
        [
            *("--nodes=2", "--ntasks=2", "--cpus-per-task=8", "ray", "symmetric-run"),
            *("--address", "10.1.2.3:23456", "--min-nodes", "2", "--num-cpus=8", "--num-gpus=0"),
            *("--dashboard-host=127.0.0.1", "--", *(command or ("dvc", "repro"))),
        ]
    )
    settings = dict(
        line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if line.count("=")
    )
    assert settings["RAY_AUTH_MODE"] == "token"
    assert settings["LAYERWISE_RAY_ADDRESS"] == "auto"
    assert not set(stray) & set(settings)
    assert stat.filemode(int((tmp_path / "mode").read_text(), 8)) == "?rw-------"
    token = (tmp_path / "token").read_text()
    assert len(token) == 64
    assert token not in (tmp_path / "environment").read_text() + done.stdout + done.stderr
    assert not Path(settings["RAY_AUTH_TOKEN_PATH"]).exists(), "removed with the job"
    assert Path(settings["RAY_AUTH_TOKEN_PATH"]).parent == tmp_path / ".layerwise", "which git ignores"

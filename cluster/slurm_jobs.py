"""Runs a job through Slurm, in a folder that every node sees, and returns its log and exit code."""

import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.letter import lines_for_people
from cluster.targets import Target

SCRIPT = "cluster/slurm.sh"
LOG = "slurm.log"
POLL_S = 2.0


def run_job(target: Target, archive: Path, command: Sequence[str]) -> tuple[str, int]:
    """archive: the project as a zip; it is unpacked in a folder of its own, which is kept.

    Nodes, time and partition are the #SBATCH lines of cluster/slurm.sh. Raises ValueError without Slurm.
    """
    parent = Path(target.folder).expanduser()
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=parent))
    with zipfile.ZipFile(archive) as package:
        package.extractall(folder)
    log = folder / LOG
    log.touch()
    # --wait: sbatch ends with the job, with its exit code.
    sbatch = ["sbatch", "--wait", f"--chdir={folder}", f"--output={log}", str(folder / SCRIPT), *command]
    print(f"folder {folder}", flush=True)
    try:
        job = subprocess.Popen(sbatch)
    except FileNotFoundError as error:
        raise ValueError(f"{target.name} needs `sbatch` on this machine: run this on a login node of Slurm") from error
    for line in lines_for_people(_chunks(log, job)):
        print(line, flush=True)
    return log.read_text(errors="replace"), job.wait()


def _chunks(log: Path, job: subprocess.Popen[bytes]) -> Iterator[str]:
    with log.open(errors="replace") as file:
        while True:
            ended = job.poll() is not None
            yield file.read()
            if ended:
                return
            time.sleep(POLL_S)

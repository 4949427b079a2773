#!/bin/bash
# A Ray cluster inside one Slurm job: `ray symmetric-run` on every node, the pipeline on the first, nothing left behind.
#
# Submit:  python -m cluster.submit slurm -- dvc repro     (from a login node; results come home)
#          sbatch cluster/slurm.sh dvc repro               (in a checkout that every node sees; results stay there)
# Stop:    scancel <job>
# Cost:    nodes x time below. GPUs: the --gpus-per-node line, and run.gpus_per_worker in params.yaml.
# Needs:   the packages of constraints.txt on every node, in the environment that is active here or in LAYERWISE_VENV.
#
#SBATCH --job-name=layerwise
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --exclusive
##SBATCH --gpus-per-node=1
##SBATCH --partition=normal
# Exclusive, because Ray on a node that already runs another's Ray refuses to start.

set -euo pipefail

if [ "$#" -eq 0 ]; then
    set -- dvc repro
fi
if [ -n "${LAYERWISE_VENV:-}" ]; then
    export PATH="$LAYERWISE_VENV/bin:$PATH"
fi

# A token for this job alone, in a file that only this user reads.
umask 077
mkdir -p .layerwise # which git ignores
token_file=$(mktemp "$PWD/.layerwise/ray-token.XXXXXX")
trap 'rm -f "$token_file"' EXIT
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token_file"
unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$token_file"
export RAY_USAGE_STATS_ENABLED=0
export RAY_TMPDIR="/tmp/layerwise-$SLURM_JOB_ID"
export LAYERWISE_RAY_ADDRESS=auto
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export OMP_WAIT_POLICY=PASSIVE

# sed and a loop read to the end: `head` would break the pipe, and pipefail the script.
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
head_ip=
for address in $(srun --nodes=1 --ntasks=1 --nodelist="$head_node" hostname --ip-address); do
    case $address in
    *:* | 127.*) ;;
    *) head_ip=${head_ip:-$address} ;;
    esac
done
if [ -z "$head_ip" ]; then
    echo "$head_node has no IPv4 address that other nodes reach: see hostname --ip-address there" >&2
    exit 1
fi
port=$((20000 + SLURM_JOB_ID % 10000))

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run \
    --address "$head_ip:$port" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" \
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --dashboard-host=127.0.0.1 \
    -- "$@"

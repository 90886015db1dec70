#!/bin/bash
# Trains on GPU nodes under Slurm and goes on after preemption, node failure and the time limit:
#   sbatch scripts/slurm.sh --config=webface42m --workdir=/shared/runs/r200
# One task a GPU: JAX finds coordinator, number and device of each from Slurm.
#SBATCH --job-name=uniface
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@180

# --signal: SIGTERM to the tasks 180 s before the time limit: finish the step, save, exit with 75.
srun --kill-on-bad-exit=1 --wait=120 .venv/bin/python -m uniface_jax.train "$@"
status=$?

case $status in
  0) echo "done" ;;
  1 | 2) echo "stopped for good: see the messages above" ;;  # requeueing would only repeat it
  # 75 preempted and saved, 76 lost a process or hung, above 128 killed: the same command goes on.
  *) echo "status $status: again" && scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit $status

#!/bin/bash
# Trains on all hosts of a TPU pod slice and goes on after preemption; run it where gcloud is:
#   scripts/tpu_pod.sh NAME ZONE --config=webface42m --workdir=/mnt/shared/runs/r200
# The repository with its .venv (jax[tpu]) is in ~/uniface_jax of every host, and the workdir on a
# file system that all hosts share. JAX finds the hosts of the slice by itself.
set -u
name=$1 zone=$2
shift 2
command="cd ~/uniface_jax && .venv/bin/python -m uniface_jax.train $(printf '%q ' "$@")"

while :; do
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
  status=$?
  case $status in
    0) exit 0 ;;
    1 | 2) exit $status ;;  # stopped for good: see the messages above
  esac
  # 75 preempted and saved, 76 lost a process or hung, 255 the slice is gone: again, once it is back.
  until [ "$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)')" = READY ]; do
    sleep 60
  done
done

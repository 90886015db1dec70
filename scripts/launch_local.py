"""Starts one training as N processes on this machine, on CPU devices, for tests and trials.

    python scripts/launch_local.py 2 --devices=2 -- --config=demo --workdir=runs/two

What follows `--` goes to every `python -m uniface_jax.train`. Lines come out with the number of
their process before them. SIGINT and SIGTERM are passed on. The status is the first one other than
0; when a process ends with one, the others have GRACE seconds to notice before they are killed.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

GRACE = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(count: int, devices: int, arguments: Sequence[str]) -> list[subprocess.Popen]:
    coordinator = f"localhost:{free_port()}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        # Of a flag that is there twice, XLA takes the last.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={devices}",
    }
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "uniface_jax.train", *arguments),
                f"--coordinator={coordinator}",
                f"--num_processes={count}",
                f"--process_id={index}",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C reaches them through us alone, once
        )
        for index in range(count)
    ]


def relay(index: int, process: subprocess.Popen) -> None:
    for line in process.stdout or ():
        print(f"[{index}] {line}", end="", flush=True)


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """Return the first status other than 0, or 0."""
    first, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes):
        ended = [process.poll() for process in processes]
        failed = [status for status in ended if status]
        if failed and not first:
            first, deadline = failed[0], time.monotonic() + GRACE
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return first or next((p.returncode for p in processes if p.returncode), 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("processes", type=int)
    parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices of each")
    parser.usage = "launch_local.py N [--devices=M] -- ARGUMENTS OF uniface_jax.train"
    here = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:here])
    if options.processes < 1 or options.devices < 1:
        parser.error("processes and devices must be at least 1")
    processes = start(options.processes, options.devices, sys.argv[here + 1 :])

    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    threads = [
        threading.Thread(target=relay, args=each, daemon=True) for each in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    status = wait(processes)
    for thread in threads:
        thread.join(5)
    # A process that a signal ended has a negative status: as shells have it.
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())

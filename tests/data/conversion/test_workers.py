"""Processes that work on tasks: what they pass on, and that they end."""

import errno
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from uniface_jax.data.conversion import workers
from uniface_jax.errors import UserError


def _work(task, tick):
    tick(1)
    if task == "die":
        os._exit(7)
    if task == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if task == "wrong":
        raise UserError("a wrong task")
    if task == "bug":
        raise KeyError("bug")
    return task * 2


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("die", UserError, "a worker process died with code 7"),
        ("full", OSError, "No space left"),
        ("wrong", UserError, "a wrong task"),
        ("bug", RuntimeError, "KeyError: 'bug'"),
    ],
)
def test_workers_pass_on_what_happens(task, error, message):
    ticks = []
    with pytest.raises(error, match=message):
        list(workers.run(_work, [1, task, 2, 3], 2, ticks.append))
    assert ticks


def test_workers_do_all_tasks_once():
    ticks = []
    found = list(workers.run(_work, range(20), 3, ticks.append))
    assert Counter(found) == Counter(2 * i for i in range(20))
    assert sum(ticks) == 20


def test_workers_end_with_the_main_process(tmp_path):
    """After SIGKILL of the main process its workers stop at their next report."""
    script = tmp_path / "main.py"
    script.write_text(
        "import os, sys, time\n"
        "from uniface_jax.data.conversion import workers\n"
        "def work(task, tick):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    while True:\n"
        "        time.sleep(0.02)\n"
        "        tick(1)\n"
        "if __name__ == '__main__':\n"
        "    list(workers.run(work, [1, 2], 2, lambda n: None))\n"
    )
    main = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        assert {int(main.stdout.readline()) for _ in range(2)} != {main.pid}
    finally:
        main.send_signal(signal.SIGKILL)
    main.communicate(timeout=60)  # ends when nobody holds the other side of the pipe any more

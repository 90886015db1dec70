"""Hooks that print what each test file took of the processors, where --durations is asked for.

A busy machine makes a test wait and hardly makes it work more: of two runs these numbers compare,
and durations do not. The processes that a test starts and waits for count with it.
"""

import os
from collections import Counter

import pytest

from tests.helpers.forked_commands import ForkedCommands

SHOWN = 25  # files
_PROPERTY = "processor_seconds"
_BEGUN = pytest.StashKey[float]()


def _seconds() -> float:
    """Return what this process, its finished children and forked commands took, in seconds."""
    return sum(os.times()[:4]) + ForkedCommands.cpu_seconds


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_BEGUN] = _seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if call.when == "teardown":  # a report's properties come back from a worker
        item.user_properties.append((_PROPERTY, _seconds() - item.stash[_BEGUN]))
    return (yield)


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("durations") is None:
        return
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                file = report.nodeid.partition("::")[0]
                seconds[file] += dict(report.user_properties).get(_PROPERTY, 0.0)
    terminalreporter.section(f"processor time of files, {sum(seconds.values()):.0f}s in all")
    for file, taken in seconds.most_common(SHOWN):
        terminalreporter.write_line(f"{taken:.1f}s {file}")

"""Who runs which test file: xdist's --dist loadfile, where a worker may die.

xdist gives a dead worker's files back with those that were done: to the worker in its place, as a
file of which nothing is to run, so that it waited for ever while the others ran all. And it has the
test in which a worker died run again, until as many workers died as it allows.
"""

from collections.abc import Mapping
from typing import Any

from xdist.scheduler import LoadFileScheduling


class LoadFiles(LoadFileScheduling):
    """Files of tests in their order; a test in which a worker died is not run a second time."""

    def remove_node(self, node: Any) -> str | None:
        """Give the rest of a worker's files to others; return the test in which it died."""
        units = self.assigned_work.pop(node)
        begun = {scope: unit for scope, unit in units.items() if not all(unit.values())}
        if not begun:
            return None
        ended_it, unit = next(_not_done(begun))
        unit[ended_it] = True
        left = {scope: unit for scope, unit in begun.items() if not all(unit.values())}
        self.workqueue.update(left)
        for scope in reversed(left):
            self.workqueue.move_to_end(scope, last=False)  # a fixture of it may be there already
        for other in self.assigned_work:
            self._reschedule(other)
        return ended_it

    def _reschedule(self, node: Any) -> None:
        """Give a worker work until it has two tests: it begins one when it knows the next."""
        super()._reschedule(node)
        while self.workqueue and self._pending_of(self.assigned_work[node]) < 2:
            if node.shutting_down:
                return
            self._assign_work_unit(node)


def _not_done(units: Mapping[str, dict[str, bool]]):
    """Yield (test, its file's tests) of those that were not run, in their order."""
    for unit in units.values():
        for test, done in unit.items():
            if not done:
                yield test, unit

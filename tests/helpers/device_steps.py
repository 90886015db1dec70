"""One run of steps on several numbers of devices, and checkpoints that go from some to others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.losses import Loss
from uniface_jax.models import Network
from uniface_jax.runtime import parallel
from uniface_jax.state import TrainState, class_sharded
from uniface_jax.train import step


class DeviceSteps:
    """Steps of one network and loss at a fixed rate, compiled once for a number of devices.

    Args of the constructor: the network and the loss; settings, whose micro-batches are those of
    one device and are shared out to several, so that batch norm sees as many images everywhere; the
    state before the first step; the learning rate; and parallel.create_runner's mode.
    """

    def __init__(
        self,
        model: tuple[Network, Loss],
        settings: step.Settings,
        start: TrainState,
        learning_rate: float,
        mode: str = "pmap",
    ) -> None:
        self.start = start
        self._model, self._settings, self._mode = model, settings, mode
        self._learning_rate = learning_rate
        self._programs: dict[int, tuple[parallel.Runner, parallel.Step]] = {}

    def program(self, devices: int) -> tuple[parallel.Runner, parallel.Step]:
        """Return the runner of so many devices and its compiled step."""
        if devices not in self._programs:
            micro = self._settings.micro_batches // devices
            # The many of one device are in a loop, as accelerators run them: one is traced and
            # compiled. Those of several devices are unrolled, as CPUs run them.
            unrolled = False if devices == 1 else None
            settings = self._settings._replace(micro_batches=micro, unrolled=unrolled)
            one = step.make_step(*self._model, lambda _: self._learning_rate, settings)
            runner = parallel.create_runner(
                self._mode, class_sharded(self.start), jax.devices()[:devices]
            )
            self._programs[devices] = runner, runner.compile(one)
        return self._programs[devices]

    def run(
        self,
        devices: int,
        batches: Sequence[Mapping[str, np.ndarray]],
        state: TrainState | None = None,
    ) -> tuple[TrainState, list[dict[str, np.ndarray]]]:
        """Return the state after a step of each batch, from `state` on, and their metrics."""
        runner, compiled = self.program(devices)
        placed = runner.place(self.start if state is None else state)
        metrics = []
        for batch in batches:
            placed, values = compiled(placed, runner.put(batch))
            metrics.append(jax.device_get(values))
        return runner.logical(placed), metrics

    def restored(self, state: TrainState, devices: tuple[int, int], folder: Path) -> TrainState:
        """Return the state from a checkpoint that the first number writes and the second reads."""
        before, after = (self.program(number)[0] for number in devices)
        shapes = jax.eval_shape(lambda: state)
        about = {"config": "{}", "data": {"num_classes": self._settings.num_classes}}
        checkpoints = Checkpoints(folder)
        try:
            checkpoints.save(before.to_global(before.place(state)), about)
            assert checkpoints.wait()
            found, _ = checkpoints.restore_newest(after.template(shapes), shapes)
        finally:
            checkpoints.close()
        return after.logical(after.from_global(found))

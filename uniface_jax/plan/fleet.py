"""Devices and training set that a plan is for, and its heading: known before anything heavy loads.

Nothing here needs the training's libraries, whose import takes seconds, so that the heading is
printed at once.
"""

from dataclasses import dataclass

from ml_collections import ConfigDict

from uniface_jax.plan.targets import Target

GB = 1e9


@dataclass(frozen=True)
class Device:
    """Device by its abilities; all of it is the user's word.

    memory: bytes. reserve: the share of it that is left to the driver, the libraries' workspaces
    and fragmentation. tflops: of matrix products in the precision of the run, by the data sheet.
    utilisation: the share of that which a whole step reaches. bandwidth: bytes/s that one device
    sends to others.
    """

    memory: float
    reserve: float
    tflops: float
    utilisation: float
    bandwidth: float

    @property
    def allowed(self) -> float:
        """Return the bytes that a run may take."""
        return self.memory * (1 - self.reserve)

    @property
    def reached(self) -> float:
        """Return the FLOP/s that a whole step reaches."""
        return self.tflops * 1e12 * self.utilisation


@dataclass(frozen=True)
class Fleet:
    """Devices of one kind, over all hosts; here: they are those of this process.

    target: the accelerator that they are, where it is one whose compiler is asked.
    """

    count: int
    device: Device
    here: bool = False
    target: Target | None = None


@dataclass(frozen=True)
class Data:
    """Size of a training set, and where the figures are from.

    epoch: the images of an epoch, each as often as it is seen; None is each once.
    """

    images: int
    classes: int
    source: str
    epoch: int | None = None

    @property
    def of_epoch(self) -> int:
        """Return the images of an epoch."""
        return self.images if self.epoch is None else self.epoch


def heading(name: str, config: ConfigDict, data: Data, fleet: Fleet) -> str:
    """Return what is planned for what, which is known before anything is computed."""
    device = fleet.device
    epoch = "" if data.of_epoch == data.images else f", {data.of_epoch:,} an epoch"
    return (
        f"{name}: {fleet.count} devices, batch {config.batch_size} in {config.micro_batches} "
        f"micro-batches, {data.images:,} images of {data.classes:,} classes{epoch} "
        f"({data.source}); "
        f"a device of {device.memory / GB:.3g} GB and {device.tflops:.3g} TFLOP/s"
    )

"""Digests as an item of Orbax's checkpoints: made in the background, committed with the rest."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from typing_extensions import override

from uniface_jax.checkpoints import digests
from uniface_jax.checkpoints.reading import TEMPORARY


class DigestHandler(ocp.AsyncCheckpointHandler):  # type: ignore[misc]  # Orbax has no types
    """Writes the digests of a state; every process those of what it saves."""

    @override
    async def async_save(self, directory: Any, args: "SaveDigests") -> list[ocp.future.Future]:
        unwritten = digests.to_write(args.state, args.shapes)

        async def write() -> None:
            unwritten.write(Path(directory))

        # It waits for the folder, and runs in a thread of its own.
        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name="digests")]

    @override
    def save(self, directory: Any, args: "SaveDigests") -> None:
        for future in asyncio.run(self.async_save(directory, args)):
            future.result()

    @override
    def finalize(self, directory: Any) -> None:
        own, step = Path(directory), Path(directory).parent
        if early := [x.name for x in step.iterdir() if TEMPORARY in x.name and x != own]:
            raise RuntimeError(f"{early[0]} is not whole: Orbax finalizes in another order")
        digests.write_files(step, own)

    @override
    def restore(self, directory: Any, args: "RestoreDigests | None" = None) -> digests.Digests:
        found = digests.read(Path(directory).parent)
        if found is None:
            raise FileNotFoundError(f"{directory} is missing")
        return found


@ocp.args.register_with_handler(DigestHandler, for_save=True)
@dataclass
class SaveDigests(ocp.args.CheckpointArgs):  # type: ignore[misc]
    """State to digest, and leaves with its shapes without padding rows, by the same names."""

    state: Any
    shapes: Any


@ocp.args.register_with_handler(DigestHandler, for_restore=True)
@dataclass
class RestoreDigests(ocp.args.CheckpointArgs):  # type: ignore[misc]
    """Nothing: all digests are read."""

"""Restores a workdir's newest checkpoint on these devices and saves what it holds in another one.

python -m tests.helpers.restore_worker FROM TO [COORDINATOR PROCESSES PROCESS]

Loss and network are the demo run's.
"""

import sys
from pathlib import Path

import jax

from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.config import from_json
from uniface_jax.runtime import processes as distributed
from uniface_jax.runtime.parallel import create_runner
from uniface_jax.state import class_sharded
from uniface_jax.train import from_config


def main(source: Path, target: Path, *processes: str) -> None:
    if processes:
        distributed.initialize(processes[0], int(processes[1]), int(processes[2]), heartbeat=300)
    config = from_json((source / "config.json").read_text())
    abstract = from_config.make_recipe(config, 40, 5).shapes
    runner = create_runner("auto", class_sharded(abstract))
    checkpoints = Checkpoints(source)
    state, run = checkpoints.restore_newest(runner.template(abstract), abstract)
    rows = -(-5 // jax.device_count())
    held = state.weights.prototypes.addressable_shards
    assert [shard.data.shape[0] for shard in held] == [rows] * jax.local_device_count()
    copies = Checkpoints(target)
    copies.save(runner.to_global(runner.from_global(state)), run)
    assert copies.wait()
    copies.close()
    checkpoints.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])

"""One's own faces on a CPU: a small network, with sizes that a laptop has memory and time for.

    python -m uniface_jax.train --config=laptop --config.data.train=aligned --workdir=runs/mine

`aligned` is what `align` made of photographs, a folder a person: some hundred images of ten people
or more; a few thousand are better. Every person that is to be told apart later need not be among
them. config.eval.data names pairs of people who are not, where there are any.

Ran on LFW's 15 people of ten images, of whom `hold-out --people=5` leaves ten to train on: 188
steps in 98 s of processor time, compiling included, to an AUC of .768 on the 450 pairs of the other
five. So few people teach a network little (docs/tutorials/your-own-data.md).
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import Expected, Hardware, RecipeFacts
from uniface_jax.data.sources.known_sets import KNOWN_SETS

VARIANTS: Mapping[str, RecipeFacts] = {
    "": RecipeFacts(
        title="UCE-M",
        network="ResNet of 8 blocks, 24 channels",
        data=KNOWN_SETS["orl"],
        hardware=Hardware(2, "CPU core", measured=False),
        expected=Expected(),
    )
}


def get_config() -> ConfigDict:
    """Return the config for a laptop; config.data.train is for the user to name."""
    config = base()
    config.data.augment.rotate = 8.0
    config.data.augment.translate = 4.0
    config.data.augment.scale = 0.08
    config.data.augment.brightness = 0.15
    config.data.augment.contrast = 0.2

    config.model.name = "lresnet18"
    config.model.width = 24
    config.model.embedding_size = 256
    config.model.stem_stride = 2
    config.model.dropout = 0.2

    config.loss.name = "uce"  # with the release's scale 64 and margin 0.4

    config.optim.lr = 0.1
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 2.0
    config.batch_size = 32  # few enough for sets of a hundred images, and for 1 GB
    config.micro_batches = 1
    config.epochs = 60.0

    config.eval.every_steps = 200
    config.checkpoint.every_steps = 100
    config.checkpoint.keep = 2
    config.log.every_steps = 20
    return config

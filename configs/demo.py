"""A small network on the ORL faces: 30 people to train on, 10 others to verify.

Data: `python -m uniface_jax.demo_data runs/faces` (300 images of 30 people; no download).
Hardware: two CPU cores, under three minutes. Result to expect: ROC-AUC over 0.985 on the ten people
never seen.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """The recipe of `make demo`."""
    config = base()
    config.data.train = "runs/faces/train"
    config.data.augment.rotate = 8.0
    config.data.augment.translate = 4.0
    config.data.augment.scale = 0.08
    config.data.augment.brightness = 0.15
    config.data.augment.contrast = 0.2

    config.model.name = "lresnet18"
    config.model.stage_sizes = (1, 1, 1, 1)
    config.model.width = 16
    config.model.embedding_size = 128
    config.model.stem_stride = 2
    config.model.dropout = 0.2

    config.loss.name = "uce"  # with the release's scale 64 and margin 0.4

    config.optim.lr = 0.1
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 4.0
    config.batch_size = 64
    config.micro_batches = 1
    config.steps = 400

    config.eval.data = "runs/faces/orl.bin"
    config.eval.every_steps = 100
    config.checkpoint.every_steps = 100
    config.checkpoint.keep = 2
    config.log.every_steps = 20
    return config

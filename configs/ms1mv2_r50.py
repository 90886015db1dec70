"""UCE-MB-λ on MS1MV2, ResNet-50: margin 0.4, negatives weigh 0.7.

Data: MS1MV2 as insightface prepared it, 5,822,653 images of 85,742 people, in data/ms1mv2; lfw.bin,
cfp_fp.bin and agedb_30.bin in data/eval.
Hardware: 8 GPUs (batch norm sees 128 images; prototypes, momentum and gradient take 0.1 GB on
each). On fewer, let micro_batches x devices stay 8.
Paper: this project knows no number of it for MS1MV2; the recipe is that of WebFace4M.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """MS1MV2, ResNet-50, UCE-MB-λ."""
    config = base()
    config.data.train = "data/ms1mv2"
    config.data.threads = 8
    config.eval.data = "data/eval"
    config.model.name = "lresnet50"
    config.loss.name = "uce"
    config.loss.margin = 0.4
    config.loss.negative_weight = 0.7
    config.optim.lr = 0.1
    config.optim.schedule = "polynomial"
    config.batch_size = 1024
    config.micro_batches = 1
    config.epochs = 20.0
    return config

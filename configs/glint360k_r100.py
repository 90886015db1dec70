"""UCE-MB-λ on Glint360K, ResNet-100: margin 0.4, negatives weigh 0.7.

Data: Glint360K, 17,091,657 images of 360,232 people, in data/glint360k; lfw.bin, cfp_fp.bin and
agedb_30.bin in data/eval.
Hardware: 8 GPUs (batch norm sees 128 images; prototypes, momentum and gradient take 0.3 GB on
each). On fewer, let micro_batches x devices stay 8.
Paper (a target, no result of this project): MegaFace identification / verification 84.87 / 97.85,
refined 99.27 / 99.19.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """Glint360K, ResNet-100, UCE-MB-λ."""
    config = base()
    config.data.train = "data/glint360k"
    config.data.threads = 8
    config.eval.data = "data/eval"
    config.model.name = "lresnet100"
    config.loss.name = "uce"
    config.loss.margin = 0.4
    config.loss.negative_weight = 0.7
    config.optim.lr = 0.1
    config.optim.schedule = "polynomial"
    config.batch_size = 1024
    config.micro_batches = 1
    config.epochs = 20.0
    return config

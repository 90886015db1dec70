"""UCE-MB-λ on WebFace4M, ResNet-50: margin 0.4, negatives weigh 0.7.

Data: WebFace4M, 4,235,242 images of 205,990 people, in data/webface4m; lfw.bin, cfp_fp.bin and
agedb_30.bin in data/eval.
Hardware: 8 GPUs (batch norm sees 128 images; prototypes, momentum and gradient take 0.2 GB on
each). On fewer, let micro_batches x devices stay 8.
Paper (a target, no result of this project): MR-All TAR@1e-6 88.55; with
--config.head.sampling_rate=0.4 --config.loss.negative_weight=1 (UCE-MB-r) 88.49; with
--config.loss.negative_weight=1 (UCE-M) 88.30; Partial FC 86.85.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """WebFace4M, ResNet-50, UCE-MB-λ."""
    config = base()
    config.data.train = "data/webface4m"
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

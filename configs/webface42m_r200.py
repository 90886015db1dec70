"""UCE-MB-λ on WebFace42M, ResNet-200: margin 0.4, negatives weigh 0.7.

Data: WebFace42M, 42,474,557 images of 2,059,906 people, in data/webface42m; lfw.bin, cfp_fp.bin and
agedb_30.bin in data/eval.
Hardware: 32 GPUs (batch norm sees 128 images; prototypes, momentum and gradient take 0.4 GB on
each). On fewer, let micro_batches x devices stay 32.
Paper (a target, no result of this project): MR-All TAR@1e-6 97.78; with
--config.head.sampling_rate=0.4 --config.loss.negative_weight=1 (UCE-MB-r) 97.92; Partial FC 97.70.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """WebFace42M, ResNet-200, UCE-MB-λ."""
    config = base()
    config.data.train = "data/webface42m"
    config.data.threads = 8
    config.eval.data = "data/eval"
    config.model.name = "lresnet200"
    config.loss.name = "uce"
    config.loss.margin = 0.4
    config.loss.negative_weight = 0.7
    config.optim.lr = 0.4
    config.optim.schedule = "polynomial"
    config.optim.warmup_epochs = 1.0
    config.batch_size = 4096
    config.micro_batches = 1
    config.epochs = 20.0
    return config

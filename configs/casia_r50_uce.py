"""UCE without a margin on CASIA-WebFace, ResNet-50.

Data: CASIA-WebFace as insightface prepared it, 490,623 images of 10,572 people, in
data/casia_webface; lfw.bin, cfp_fp.bin and agedb_30.bin in data/eval.
Hardware: one GPU of 24 GB (an estimate); batch norm sees 512 / (devices x micro_batches) images,
128 as in the release. On 4 GPUs give --config.micro_batches=1.
Paper (a target, no result of this project): MR-All TAR@1e-6 19.59.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """CASIA-WebFace, ResNet-50, UCE."""
    config = base()
    config.data.train = "data/casia_webface"
    config.eval.data = "data/eval"
    config.loss.name = "uce"
    config.loss.margin = 0.0
    return config

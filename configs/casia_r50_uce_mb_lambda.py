"""UCE-MB-λ on CASIA-WebFace, ResNet-50: margin 0.45, negatives weigh 0.6.

Data: CASIA-WebFace as insightface prepared it, 490,623 images of 10,572 people, in
data/casia_webface; lfw.bin, cfp_fp.bin and agedb_30.bin in data/eval.
Hardware: one GPU of 24 GB (an estimate); batch norm sees 512 / (devices x micro_batches) images,
128 as in the release. On 4 GPUs give --config.micro_batches=1.
Paper (a target, no result of this project): MR-All TAR@1e-6 48.54; IJB-C TAR@1e-4 88.96, @1e-5
78.40; LFW 99.55, CFP-FP 97.47, AgeDB 95.36; MegaFace (margin 0.4, λ 0.7) identification /
verification 77.83 / 93.64, refined 92.75 / 95.17.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """CASIA-WebFace, ResNet-50, UCE-MB-λ."""
    config = base()
    config.data.train = "data/casia_webface"
    config.eval.data = "data/eval"
    config.loss.name = "uce"
    config.loss.margin = 0.45
    config.loss.negative_weight = 0.6
    return config

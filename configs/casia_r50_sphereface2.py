"""SphereFace2 on CASIA-WebFace, ResNet-50, with its authors' scale, margin and weights.

Data: CASIA-WebFace as insightface prepared it, 490,623 images of 10,572 people, in
data/casia_webface; lfw.bin, cfp_fp.bin and agedb_30.bin in data/eval.
Hardware: one GPU of 24 GB (an estimate); batch norm sees 512 / (devices x micro_batches) images,
128 as in the release. On 4 GPUs give --config.micro_batches=1.
Paper (a target, no result of this project): MR-All TAR@1e-6 44.20; IJB-C TAR@1e-4 88.41, @1e-5
79.18; LFW 99.46, CFP-FP 97.42, AgeDB 94.96.
"""

from ml_collections import ConfigDict

from uniface_jax.config import base


def get_config() -> ConfigDict:
    """CASIA-WebFace, ResNet-50, SphereFace2."""
    config = base()
    config.data.train = "data/casia_webface"
    config.eval.data = "data/eval"
    config.loss.name = "sphereface2"
    return config

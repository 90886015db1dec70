"""Glint360K, ResNet-100 and MobileFaceNet: UCE-MB-λ, margin 0.4, negatives weigh 0.7.

    python -m uniface_jax.train --config=glint360k --workdir=runs/glint360k

`mbf` is arcface_torch's MobileFaceNet with its CosFace. Batch norm sees 128 images: on fewer than 8
GPUs, let micro_batches x devices stay 8. Data: what convert made of the set, in data/glint360k;
lfw.bin, cfp_fp.bin and agedb_30.bin in data/eval.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import Expected, Hardware, RecipeFacts, apply, choose
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.evaluate.report.paper import IJBC_4, IJBC_5, MR_ALL, published

DEFAULT = "uce_mb_lambda"


def _facts(method: str, **settings: float) -> RecipeFacts:
    return RecipeFacts(
        title=method,
        network="ResNet-100",
        data=KNOWN_SETS["glint360k"],
        hardware=Hardware(8, "GPU", measured=False),
        expected=Expected(published("Glint360K, R100", method)),
        settings={key.replace("__", "."): value for key, value in settings.items()},
    )


# Of arcface_torch's glint360k_mbf: the numbers are of its README (insightface 7fadd420, 2026-07).
_MBF = RecipeFacts(
    title="CosFace m .4",
    network="MobileFaceNet",
    data=KNOWN_SETS["glint360k"],
    hardware=Hardware(8, "GPU", measured=False),
    expected=Expected(
        {MR_ALL: 70.18, IJBC_4: 95.04, IJBC_5: 92.62},
        source="arcface_torch's README",
    ),
    settings={
        "model.name": "mbf",
        "loss.name": "cosface",
        "head.init_std": 0.01,
        "optim.weight_decay": 1e-4,
        "optim.clip": 5.0,
        "optim.clip_on": "network",
        "epochs": 20.0,
    },
)
_MBF_UCE = RecipeFacts(
    title="UCE-MB λ .7",
    network="MobileFaceNet",
    data=KNOWN_SETS["glint360k"],
    hardware=Hardware(8, "GPU", measured=False),
    expected=Expected(),
    settings={
        "model.name": "mbf",
        "loss.negative_weight": 0.7,
        "optim.weight_decay": 1e-4,
        "epochs": 20.0,
    },
)

VARIANTS: Mapping[str, RecipeFacts] = {
    "uce_mb_lambda": _facts("UCE-MB λ .7", loss__negative_weight=0.7),
    "mbf": _MBF,
    "mbf_uce": _MBF_UCE,
}


def get_config(variant: str = DEFAULT) -> ConfigDict:
    """Return the config of one of VARIANTS; UserError, which lists them, for another."""
    facts = choose(VARIANTS, variant)
    config = base()
    config.data.train = "data/glint360k"
    config.data.drop_last = True
    config.data.threads = 8
    config.eval.data = "data/eval"
    config.model.name = "lresnet100"
    config.loss.name = "uce"
    config.loss.margin = 0.4
    config.optim.lr = 0.1
    config.optim.schedule = "polynomial"
    config.batch_size = 1024
    config.micro_batches = 1
    config.epochs = 20.0
    return apply(config, facts)

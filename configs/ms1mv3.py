"""MS1MV3, ResNet-50, ResNet-100 and MobileFaceNet: UCE-MB-λ, margin 0.4, negatives weigh 0.7.

    python -m uniface_jax.train --config=ms1mv3:r50 --workdir=runs/ms1mv3_r50

The schedule of WebFace4M; the paper reports nothing for this set. `mbf` is arcface_torch's
MobileFaceNet with its ArcFace. Batch norm sees 128 images: on fewer than 8 GPUs, let micro_batches
x devices stay 8. Data: what convert made of the set as insightface prepared it, in data/ms1mv3;
lfw.bin, cfp_fp.bin and agedb_30.bin in data/eval.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import Expected, Hardware, RecipeFacts, apply, choose
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.evaluate.report.paper import IJBC_4, IJBC_5, MR_ALL


def _facts(layers: int) -> RecipeFacts:
    return RecipeFacts(
        title="UCE-MB λ .7",
        network=f"ResNet-{layers}",
        data=KNOWN_SETS["ms1mv3"],
        hardware=Hardware(8, "GPU", measured=False),
        expected=Expected(),
        settings={"model.name": f"lresnet{layers}"},
    )


# Of arcface_torch's ms1mv3_mbf: the numbers are of its README (insightface 7fadd420, 2026-07).
_MBF = RecipeFacts(
    title="ArcFace m .5",
    network="MobileFaceNet",
    data=KNOWN_SETS["ms1mv3"],
    hardware=Hardware(8, "GPU", measured=False),
    expected=Expected(
        {MR_ALL: 63.78, IJBC_4: 94.23, IJBC_5: 91.33},
        gradient="detached",
        source="arcface_torch's README",
    ),
    settings={
        "model.name": "mbf",
        "loss.name": "arcface",
        "loss.margin": 0.5,
        "loss.negative_weight": None,
        "loss.gradient": "detached",
        "head.init_std": 0.01,
        "optim.weight_decay": 1e-4,
        "optim.clip": 5.0,
        "optim.clip_on": "network",
        "epochs": 40.0,
    },
)
_MBF_UCE = RecipeFacts(
    title="UCE-MB λ .7",
    network="MobileFaceNet",
    data=KNOWN_SETS["ms1mv3"],
    hardware=Hardware(8, "GPU", measured=False),
    expected=Expected(),
    settings={
        "model.name": "mbf",
        "loss.negative_weight": 0.7,
        "optim.weight_decay": 1e-4,
        "epochs": 40.0,
    },
)

VARIANTS: Mapping[str, RecipeFacts] = {
    "r50": _facts(50),
    "r100": _facts(100),
    "mbf": _MBF,
    "mbf_uce": _MBF_UCE,
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of one of VARIANTS; UserError, which lists them, for another."""
    facts = choose(VARIANTS, variant)
    config = base()
    config.data.train = "data/ms1mv3"
    config.data.drop_last = True
    config.data.threads = 8
    config.eval.data = "data/eval"
    config.loss.name = "uce"
    config.loss.margin = 0.4
    config.loss.negative_weight = 0.7
    config.optim.lr = 0.1
    config.optim.schedule = "polynomial"
    config.batch_size = 1024
    config.micro_batches = 1
    config.epochs = 20.0
    return apply(config, facts)

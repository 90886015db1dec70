"""WebFace42M, ResNet-200: UCE with weighted or sampled negatives, Partial FC; margin 0.4.

    python -m uniface_jax.train --config=webface42m --workdir=runs/webface42m

Batch norm sees 128 images: on fewer than 32 GPUs, let micro_batches x devices stay 32. Data: what
convert made of the set, in data/webface42m; lfw.bin, cfp_fp.bin and agedb_30.bin in data/eval.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import Expected, Hardware, RecipeFacts, apply, choose
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.evaluate.report.paper import published

DEFAULT = "uce_mb_lambda"


def _facts(method: str, *, network: str = "ResNet-200", **settings: Any) -> RecipeFacts:
    return RecipeFacts(
        title=method,
        network=network,
        data=KNOWN_SETS["webface42m"],
        hardware=Hardware(32, "GPU", measured=False),
        expected=Expected(published("WebFace42M, R200", method)),
        settings={key.replace("__", "."): value for key, value in settings.items()},
    )


VARIANTS: Mapping[str, RecipeFacts] = {
    "uce_mb_lambda": _facts("UCE-MB λ .7", loss__negative_weight=0.7),
    "uce_mb_r": _facts("UCE-MB r .4", loss__negative_weight=1.0, head__sampling_rate=0.4),
    # As arcface_torch's wf42m_pfc03_32gpu_r200, which clips the backbone's gradient alone.
    "partial_fc": _facts(
        "Partial FC",
        network="IResNet-200",
        model__name="iresnet200",
        loss__name="cosface",
        head__init_std=0.01,
        head__sampling_rate=0.3,
        optim__clip=5.0,
        optim__warmup_epochs=2.0,
    ),
}


def get_config(variant: str = DEFAULT) -> ConfigDict:
    """Return the config of one of VARIANTS; UserError, which lists them, for another."""
    facts = choose(VARIANTS, variant)
    config = base()
    config.data.train = "data/webface42m"
    config.data.drop_last = True
    config.data.threads = 8
    config.eval.data = "data/eval"
    config.model.name = "lresnet200"
    config.loss.name = "uce"
    config.loss.margin = 0.4
    config.optim.lr = 0.4
    config.optim.schedule = "polynomial"
    config.optim.warmup_epochs = 1.0
    config.batch_size = 4096
    config.micro_batches = 1
    config.epochs = 20.0
    return apply(config, facts)

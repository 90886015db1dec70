"""CASIA-WebFace, ResNet-50, with the losses of the paper.

    python -m uniface_jax.train --config=casia:uce_m --workdir=runs/casia_uce_m

The release's schedule, to the step: epochs of whole batches. Batch norm sees batch_size / (devices
x micro_batches) images, 128 as in the release: on 4 GPUs give --config.micro_batches=1. Data:
what convert made of the set as insightface prepared it, in data/casia_webface; lfw.bin, cfp_fp.bin
and agedb_30.bin in data/eval.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import UNKNOWN, Expected, Hardware, RecipeFacts, apply, choose
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.evaluate.report.paper import IJBC_4, IJBC_5, MR_ALL, published


def _facts(method: str, settings: Mapping[str, Any], gradient: str = "") -> RecipeFacts:
    return RecipeFacts(
        title=method,
        network="ResNet-50",
        data=KNOWN_SETS["casia_webface"],
        hardware=Hardware(1, "GPU of 24 GB", measured=False),
        expected=Expected(published("CASIA, R50", method), gradient=gradient),
        settings=settings,
    )


def _uce(method: str, margin: float, **more: float) -> RecipeFacts:
    settings = {key.replace("__", "."): value for key, value in more.items()}
    return _facts(method, {"loss.name": "uce", "loss.margin": margin, **settings})


def _detached(method: str, loss: str) -> RecipeFacts:
    gradient = "detached"
    return _facts(method, {"loss.name": loss, "loss.gradient": gradient}, gradient)


def _with_samples(title: str, expected: Expected, **loss: Any) -> RecipeFacts:
    # Of UniTSFace's release (a53e97e): the schedule is UniFace's; USS from the second epoch on.
    return RecipeFacts(
        title=title,
        network="ResNet-50",
        data=KNOWN_SETS["casia_webface"],
        hardware=Hardware(1, "GPU of 24 GB", measured=False),
        expected=expected,
        settings={
            "loss.margin": 0.4,
            "loss.with_samples": True,
            "loss.sample_margin": 0.1,
            **{f"loss.{key}": value for key, value in loss.items()},
        },
    )


def _with_quality() -> RecipeFacts:
    # CR-FIQA(S) of its paper and release (a8f98da): 34 epochs, a batch of 512 on 4 GPUs, the
    # network's gradient clipped alone. The rate is the paper's; config.py has .01 by now.
    return RecipeFacts(
        title="CR-FIQA(S), ArcFace m .5",
        network="IResNet-50",
        data=KNOWN_SETS["casia_webface"],
        hardware=Hardware(1, "GPU of 24 GB", measured=False),
        expected=Expected(gradient="formula"),
        settings={
            "model.name": "iresnet50",
            "model.dropout": 0.4,
            "loss.name": "arcface",
            "loss.margin": 0.5,
            "loss.gradient": "formula",
            "quality.weight": 10.0,
            "quality.as_published": True,
            "head.init_std": 0.01,
            "optim.clip": 5.0,
            "optim.clip_on": "network",
            "optim.milestones": (19, 27, 31),
            "epochs": 34.0,
        },
    )


VARIANTS: Mapping[str, RecipeFacts] = {
    "uce": _uce("UCE, no margin", 0.0),
    "uce_m": _uce("UCE-M", 0.4),  # the release's margin
    "uce_mb_lambda": _uce("UCE-MB λ .6", 0.45, loss__negative_weight=0.6),
    "uce_mb_lambda_megaface": _uce("UCE-MB λ .7, m .4", 0.4, loss__negative_weight=0.7),
    "uce_mb_r": _uce("UCE-MB r .5", 0.45, head__sampling_rate=0.5),
    "nsl": _facts("NSL, no margin", {"loss.name": "nsl", "loss.margin": 0.0}),
    "bce": _facts("BCE, no margin", {"loss.name": "bce", "loss.margin": 0.0}),
    "cosface": _facts("CosFace m .35", {"loss.name": "cosface", "loss.margin": 0.35}),
    # The code of the paper's ArcFace is not public; the gradient here is the formula's.
    "arcface": _facts("ArcFace m .5", {"loss.name": "arcface", "loss.margin": 0.5}, UNKNOWN),
    # With the scale, margin, weights and gradient of their authors' code, ydwen/opensphere.
    "sphereface_r": _detached("SphereFace-R", "sphereface_r"),
    "sphereface2": _detached("SphereFace2", "sphereface2"),
    "cosface_uss": _with_samples(
        "CosFace m .4 + USS",
        Expected({MR_ALL: 50.28, IJBC_4: 89.84, IJBC_5: 82.64}, source="UniTSFace's paper"),
        name="cosface",
    ),
    "uce_uss": _with_samples("UCE-M + USS", Expected(), name="uce"),  # in the code, not reported
    "crfiqa": _with_quality(),  # its paper reports areas of error-versus-reject, no rates
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of one of VARIANTS; UserError, which lists them, for another."""
    facts = choose(VARIANTS, variant)
    config = base()
    config.data.train = "data/casia_webface"
    config.data.drop_last = True
    config.eval.data = "data/eval"
    return apply(config, facts)

"""MS1MV2, ResNet-50 and ResNet-100: UCE-MB-λ, margin 0.4, negatives weigh 0.7; other losses.

    python -m uniface_jax.train --config=ms1mv2:r50 --workdir=runs/ms1mv2_r50

The schedule of WebFace4M; the paper reports nothing for this set. Batch norm sees 128 images: on
fewer than 8 GPUs, let micro_batches x devices stay 8. `magface` and `elastic_…` are of those
losses' own codes, with their schedules, batches of 512 and insightface's IResNet-100. Data: what
convert made of the set as insightface prepared it, in data/ms1mv2; lfw.bin, cfp_fp.bin and
agedb_30.bin in data/eval.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import Expected, Hardware, RecipeFacts, apply, choose
from uniface_jax.data.sources.known_sets import KNOWN_SETS
from uniface_jax.evaluate.report.paper import AGEDB, CFP_FP, LFW


def _facts(layers: int) -> RecipeFacts:
    return RecipeFacts(
        title="UCE-MB λ .7",
        network=f"ResNet-{layers}",
        data=KNOWN_SETS["ms1mv2"],
        hardware=Hardware(8, "GPU", measured=False),
        expected=Expected(),
        settings={"model.name": f"lresnet{layers}"},
    )


def _of_loss(
    title: str, expected: Expected, milestones: tuple[int, ...], epochs: float, **settings: Any
) -> RecipeFacts:
    """Return a recipe of another loss's own code: SGD by milestones in batches of 512."""
    return RecipeFacts(
        title=title,
        network="IResNet-100",
        data=KNOWN_SETS["ms1mv2"],
        hardware=Hardware(4, "GPU", measured=False),
        expected=expected,
        settings={
            "model.name": "iresnet100",
            "loss.margin": None,
            "loss.negative_weight": None,
            "optim.schedule": "steps",
            "optim.milestones": milestones,
            "batch_size": 512,
            "epochs": epochs,
            **{key.replace("__", "."): value for key, value in settings.items()},
        },
    )


def _elastic(title: str, name: str, **percent: float) -> RecipeFacts:
    # Of ElasticFace's config.py and train script (5496ec0): the head's gradient is not clipped.
    return _of_loss(
        title, Expected(percent, source="Papers with Code"), (7, 13, 19, 24), 26.0,
        loss__name=name, head__init_std=0.01, optim__clip=5.0, optim__clip_on="network",
    )  # fmt: skip


def _adadistill() -> RecipeFacts:
    facts = _of_loss(
        "AdaDistill, ArcFace m .45",
        Expected(gradient="formula"),
        (7, 13, 19, 24),
        26.0,
        model__name="mbf",
        loss__name="arcface",
        loss__margin=0.45,
        loss__gradient="formula",
        distill__method="centers",
        head__init_std=0.01,
        optim__clip=5.0,
        optim__clip_on="network",
    )
    return replace(facts, network="MobileFaceNet")


# Numbers of MagFace are the paper's; run.sh (99bae61) has no clipping. Of ElasticFace's one number
# could be read again, at Papers with Code.
VARIANTS: Mapping[str, RecipeFacts] = {
    "r50": _facts(50),
    "r100": _facts(100),
    "magface": _of_loss(
        "MagFace λ_g 35",
        Expected({LFW: 99.83, CFP_FP: 98.46, AGEDB: 98.17}, source="MagFace's paper"),
        (10, 18, 22),
        25.0,
        loss__name="magface",
        optim__clip=float("inf"),
    ),
    # Sub-center ArcFace (ECCV 2020): its published numbers are of MS1MV0, a noisier set.
    "arcface_k3": _of_loss(
        "Sub-center ArcFace, K 3",
        Expected(gradient="detached"),
        (8, 14),
        17.0,
        loss__name="arcface",
        loss__gradient="detached",
        head__subcentres=3,
        head__init_std=0.01,
    ),
    # UNPG (BMVC 2022) with the margin and whisker of its zoo, and ArcFace's schedule.
    "unpg_cosface": _of_loss(
        "CosFace m .5 with UNPG",
        Expected(),
        (8, 14),
        17.0,
        loss__name="cosface",
        loss__margin=0.5,
        head__pair_whisker=1.5,
    ),
    # AdaDistill (ECCV 2024) of its release (0842186): a MobileFaceNet learns from a ResNet-50,
    # which config.distill.teacher is to name.
    "adadistill_arc": _adadistill(),
    "elastic_arc": _elastic("ElasticFace-Arc", "elastic_arc"),
    "elastic_cos": _elastic("ElasticFace-Cos", "elastic_cos", **{AGEDB: 98.35}),
    "elastic_arc_plus": _elastic("ElasticFace-Arc+", "elastic_arc_plus"),
    "elastic_cos_plus": _elastic("ElasticFace-Cos+", "elastic_cos_plus"),
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of one of VARIANTS; UserError, which lists them, for another."""
    facts = choose(VARIANTS, variant)
    config = base()
    config.data.train = "data/ms1mv2"
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

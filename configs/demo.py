"""A small network on the ORL faces: 30 people to train on, 10 others to verify.

    python -m uniface_jax.train
    python -m uniface_jax.train --config=demo:vit --workdir=runs/demo_vit

Training prepares the faces in runs/faces, out of an installed package and without a download.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from uniface_jax.config import base
from uniface_jax.config.facts import Expected, Hardware, RecipeFacts, apply, choose
from uniface_jax.data.sources.known_sets import KNOWN_SETS

VARIANTS: Mapping[str, RecipeFacts] = {
    "": RecipeFacts(
        title="UCE-M",
        network="ResNet of 4 blocks, 16 channels",
        data=KNOWN_SETS["orl"],
        hardware=Hardware(2, "CPU core", measured=True, minutes=1.5),
        expected=Expected({"ROC-AUC of unseen people, at least": 98.5}, measured=True),
    ),
    # A ViT of arcface_torch's form. Measured on two cores that were busy with other work besides.
    "vit": RecipeFacts(
        title="UCE-M",
        network="ViT of 4 blocks, 64 channels",
        data=KNOWN_SETS["orl"],
        hardware=Hardware(2, "CPU core", measured=True, minutes=5),
        expected=Expected({"ROC-AUC of unseen people, at least": 97.5}, measured=True),
        settings={
            "model.name": "vit_t",
            "model.stage_sizes": None,
            "model.dropout": None,
            "model.vit.dim": 64,
            "model.vit.depth": 4,
            "model.vit.heads": 4,
            "model.vit.patch": 14,
            "model.vit.mlp_ratio": 2,
            "model.vit.drop_path": 0.05,
            "model.vit.mask_ratio": 0.1,
            "optim.name": "adamw",
            "optim.lr": 0.002,
            "optim.weight_decay": 0.1,
            "optim.clip": 5.0,
            "optim.clip_on": "network",
            "optim.warmup_epochs": 8.0,
            "steps": 300,
        },
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of one of VARIANTS; UserError, which lists them, for another."""
    facts = choose(VARIANTS, variant)
    config = base()
    config.data.train = "runs/faces/train"
    config.data.prepare = "orl:runs/faces"
    config.data.augment.rotate = 8.0
    config.data.augment.translate = 4.0
    config.data.augment.scale = 0.08
    config.data.augment.brightness = 0.15
    config.data.augment.contrast = 0.2

    config.model.name = "lresnet18"
    config.model.stage_sizes = (1, 1, 1, 1)
    config.model.width = 16
    config.model.embedding_size = 128
    config.model.stem_stride = 2
    config.model.dropout = 0.2

    config.loss.name = "uce"  # with the release's scale 64 and margin 0.4

    config.optim.lr = 0.1
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 4.0
    config.batch_size = 64
    config.micro_batches = 1
    config.steps = 400

    config.eval.data = "runs/faces/orl.bin"
    config.eval.every_steps = 100
    config.checkpoint.every_steps = 100
    config.checkpoint.keep = 2
    config.log.every_steps = 20
    return apply(config, facts)

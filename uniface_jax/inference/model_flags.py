"""Flags by which commands open a model: what an ONNX file is fed, and what a workdir is read as."""

from dataclasses import dataclass
from typing import Any

from absl import flags

from uniface_jax.inference.load import LANDMARKS, load_mean, load_model
from uniface_jax.inference.model import Model

flags.disclaim_key_flags()  # --help lists them with the command that defines them


@dataclass(frozen=True)
class ModelFlags:
    """Flags of define, by name; their values are there once the command line is parsed."""

    holders: dict[str, flags.FlagHolder[Any]]
    weights: flags.FlagHolder[str]

    def load(self, path: str) -> Model:
        """Load the model at `path` by the flags, as load_model does."""
        load = load_mean if self.weights.value == "ema" else load_model
        return load(path, **{name: holder.value for name, holder in self.holders.items()})


def define() -> ModelFlags:
    """Define --mirror, --input_scale, --channel_order, --output_name, --landmarks and --weights."""
    holders: dict[str, flags.FlagHolder[Any]] = {
        "mirror": flags.DEFINE_bool(
            "mirror",
            None,
            "Add the features of the mirrored images; default: unless they are inside.",
        ),
        **define_input(),
        "landmarks": flags.DEFINE_enum(
            "landmarks",
            "data",
            list(LANDMARKS),
            "Of a workdir's network that takes them: each image's own, or the template's for all.",
        ),
    }
    weights = flags.DEFINE_enum(
        "weights",
        "raw",
        ["raw", "ema"],
        "Of a workdir: as they are, or the mean that config.optim.ema keeps.",
    )
    return ModelFlags(holders, weights)


def define_input() -> dict[str, flags.FlagHolder[Any]]:
    """Define --input_scale, --channel_order and --output_name: what an ONNX file may not say."""
    return {
        "input_scale": flags.DEFINE_enum(
            "input_scale",
            "auto",
            ["auto", "unit", "raw", "zero_one"],
            "Pixels an ONNX file is fed: (x-127.5)/127.5, 0..255 or x/255; auto reads its metadata "
            "and graph, and else compares the features of some of the first faces, without labels.",
        ),
        "channel_order": flags.DEFINE_enum(
            "channel_order",
            "auto",
            ["auto", "rgb", "bgr"],
            "Order of the colors an ONNX file is fed; auto is rgb, unless the file tells.",
        ),
        "output_name": flags.DEFINE_string(
            "output_name",
            None,
            "The ONNX file's output of features; default: the one of that shape.",
        ),
    }

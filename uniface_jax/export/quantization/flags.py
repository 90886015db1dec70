"""Flags by which a network is quantized, and evaluated beside its float32."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from absl import flags

from uniface_jax import cli
from uniface_jax.errors import UserError, extra
from uniface_jax.evaluate import protocol_flags
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.inference import model_flags
from uniface_jax.inference.load import InputOptions

if TYPE_CHECKING:  # loaded only where something is quantized
    from uniface_jax.export.quantization.run import Request

KINDS = ("int8", "float16")
_OF_INT8 = ("calibration_images", "calibration_seed", "calibration_method", "percentile")
_OF_LAYERS = ("float_layers", "activations")

flags.disclaim_key_flags()  # --help lists them with the command that defines them


@dataclass(frozen=True)
class QuantizeFlags:
    """Flags of define, by name; their values are there once the command line is parsed."""

    quantize: flags.FlagHolder[str | None]
    holders: dict[str, flags.FlagHolder[Any]]
    inputs: dict[str, flags.FlagHolder[Any]]
    work: protocol_flags.ProtocolFlags
    on_error: flags.FlagHolder[str]

    def expect_none(self) -> None:
        """Raise UserError where a flag is given that only --quantize takes."""
        work = self.work
        given = [*self.holders.values(), *self.inputs.values(), work.protocol, work.data, work.fars]
        for flag in given:
            if flag.present:
                raise UserError(f"--{flag.name}: only with --quantize={'|'.join(KINDS)}")

    def request(self) -> "Request":
        """Return what is asked for; data sets are opened, no image is read.

        Raises UserError for flags that do not go together, and data that cannot be opened.
        """
        kind = self.quantize.value
        assert kind is not None
        self._check(kind)
        evaluation = None
        if self.work.data.value or self.work.protocol.present:
            skip = self.on_error.value == "skip"
            usage = "--quantize evaluates on --data=FILES [--protocol=…]"
            evaluation = (
                self.work.parts(lambda: usage),
                Options(self.work.targets(), skip),
            )
        with extra("export"):
            from uniface_jax.export.quantization.calibration import choose
            from uniface_jax.export.quantization.int8 import Int8Settings
            from uniface_jax.export.quantization.run import Request

        value = {name: flag.value for name, flag in self.holders.items()}
        calibration = None
        if value["calibration"]:
            calibration = choose(
                value["calibration"],
                value["calibration_images"],
                value["calibration_seed"],
                skip_faults=self.on_error.value == "skip",
            )
        settings = Int8Settings(
            value["calibration_method"],
            value["percentile"],
            tuple(value["float_layers"]),
            value["activations"],
        )
        inputs = InputOptions(
            input_scale=self.inputs["input_scale"].value,
            channel_order=self.inputs["channel_order"].value,
            output_name=self.inputs["output_name"].value,
        )
        return Request(kind, calibration, settings, evaluation, inputs)

    def _check(self, kind: str) -> None:
        holders = self.holders
        if kind == "int8" and not holders["calibration"].value:
            raise UserError(
                "--quantize=int8: --calibration=DATASET is missing: some hundred aligned faces, by "
                "which the ranges of activations are found"
            )
        for name in (*_OF_INT8, *_OF_LAYERS):
            if kind != "int8" and holders[name].present:
                raise UserError(f"--{name}: only with --quantize=int8")
        if holders["percentile"].present and holders["calibration_method"].value != "percentile":
            raise UserError("--percentile: only with --calibration_method=percentile")
        for end in holders["float_layers"].value:
            if end not in ("first", "last"):
                raise UserError(f"--float_layers={end}: expected first, last or first,last")


def define() -> QuantizeFlags:
    """Define --quantize, all that goes with it, and the flags of an evaluation."""
    quantize = flags.DEFINE_enum(
        "quantize", None, KINDS, "Write an ONNX file of int8 or float16, and measure it."
    )
    holders: dict[str, flags.FlagHolder[Any]] = {
        "calibration": flags.DEFINE_string(
            "calibration",
            None,
            "Aligned faces, any data set, folder or list: int8's ranges follow from them, and the "
            "report has the cosines between both files' features of them.",
        ),
        "calibration_images": flags.DEFINE_integer(
            "calibration_images", 512, "How many of them are taken.", lower_bound=1
        ),
        "calibration_seed": flags.DEFINE_integer(
            "calibration_seed", 0, "Of the choice among them.", lower_bound=0
        ),
        "calibration_method": flags.DEFINE_enum(
            "calibration_method",
            "entropy",
            ["minmax", "entropy", "percentile"],
            "How the range of an activation follows from its values.",
        ),
        "percentile": flags.DEFINE_float(
            "percentile", 99.99, "Of the values, that the range of that method holds.", 50.0, 100.0
        ),
        "float_layers": flags.DEFINE_list(
            "float_layers", [], "Layers that stay float32: first, last or first,last."
        ),
        "activations": flags.DEFINE_enum(
            "activations",
            "uint8",
            ["uint8", "int8"],
            "uint8 with a zero point, for CPUs; or int8 without, which TensorRT needs.",
        ),
    }
    return QuantizeFlags(
        quantize,
        holders,
        model_flags.define_input(),
        protocol_flags.define(),
        cli.define_on_error("an empty identity folder, or one inside a person's,"),
    )

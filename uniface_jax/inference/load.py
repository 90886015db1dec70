"""Loads any model: a workdir of training, or an ONNX file."""

from pathlib import Path
from typing import TypedDict

from typing_extensions import Unpack

from uniface_jax.errors import UserError, extra
from uniface_jax.inference.model import Model

WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".safetensors", ".npz")
LANDMARKS = ("data", "template")


class InputOptions(TypedDict, total=False):
    """Choices that load_model takes on the input and output of a model."""

    input_scale: str
    channel_order: str
    output_name: str | None
    landmarks: str


def load_model(
    path: Path | str,
    mirror: bool | None = None,
    input_scale: str = "auto",
    channel_order: str = "auto",
    output_name: str | None = None,
    landmarks: str = "data",
) -> Model:
    """Load the model at `path`: an ONNX file, or a workdir of uniface_jax.train.

    Args:
        path: the file or folder; of a workdir the newest checkpoint is taken, and one of its
            checkpoints/STEP may be given.
        mirror: True adds the features of the mirrored images, False does not; None adds them,
            except where an ONNX file of this project says that it holds the sum already.
        input_scale: the pixels that an ONNX graph is fed: "unit" (x - 127.5) / 127.5, "raw" 0..255,
            "zero_one" x / 255, or "auto", see onnx_model.load_onnx.
        channel_order: their colors' order: "rgb", "bgr", or "auto", which is RGB unless the file
            tells otherwise.
        output_name: the ONNX graph's output of features; None chooses by shape.
        landmarks: for a network that takes them: those of the "data", an image its own, or the
            "template"'s for all.

    Returns:
        The model, whose `embed` maps uint8 RGB images [B, 112, 112, 3] to features [B, D], once it
        is settled with faces of the set (Model.settled).

    Raises:
        UserError: names the file when it cannot be used.

    Example:
        >>> try:
        ...     load_model("missing.onnx")
        ... except UserError as error:
        ...     print(error)
        missing.onnx: no such model; expected an ONNX file or a workdir of training
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such model; expected an ONNX file or a workdir of training")
    _check_landmarks(path, landmarks)
    if not path.is_dir():
        _refuse_weights(path)
        with extra("export"):
            from uniface_jax.inference.onnx_model import OnnxOptions, load_onnx

        return load_onnx(path, mirror, OnnxOptions(input_scale, channel_order, output_name))
    _check_workdir(path, input_scale, channel_order, output_name)
    # Not at the top: an ONNX file needs neither JAX nor the checkpoint library.
    from uniface_jax.inference.network import load_workdir

    return load_workdir(path, mirror is not False, landmarks)


def load_mean(
    path: Path | str, mirror: bool | None = None, **options: Unpack[InputOptions]
) -> Model:
    """Load a workdir's network in the mean of its weights, which config.optim.ema keeps.

    All else as load_model. Raises UserError for what is no workdir, or has no mean.
    """
    path, landmarks = Path(path), options.get("landmarks", LANDMARKS[0])
    if not path.is_dir():
        raise UserError(f"weights=ema: {path} is no workdir, and has no mean of the weights")
    _check_landmarks(path, landmarks)
    _check_workdir(
        path,
        options.get("input_scale", "auto"),
        options.get("channel_order", "auto"),
        options.get("output_name"),
    )
    from uniface_jax.inference.network import load_workdir

    return load_workdir(path, mirror is not False, landmarks, "ema")


def _check_workdir(
    path: Path, input_scale: str, channel_order: str, output_name: str | None
) -> None:
    """Raise UserError for a choice that only ONNX files take."""
    for key, value in (
        ("input_scale", input_scale),
        ("channel_order", channel_order),
        ("output_name", output_name or "auto"),
    ):
        if value != "auto":
            raise UserError(f"{key}={value}: {path} is a workdir; only ONNX files take one")


def _check_landmarks(path: Path, landmarks: str) -> None:
    """Raise UserError unless `landmarks` is a choice that the model at `path` may have."""
    if landmarks not in LANDMARKS:
        raise UserError(f"landmarks={landmarks}: expected one of {', '.join(LANDMARKS)}")
    if landmarks != "data" and not path.is_dir():
        raise UserError(f"landmarks={landmarks}: {path} is no workdir; only those take it")


def _refuse_weights(path: Path) -> None:
    if path.suffix in WEIGHT_SUFFIXES:
        raise UserError(
            f"{path}: weights without a network; make a workdir of them by "
            f"python -m uniface_jax.import_weights {path} WORKDIR, and give that"
        )

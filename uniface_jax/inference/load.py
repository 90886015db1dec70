"""Loads any model: a workdir of training, or an ONNX file."""

from pathlib import Path

from uniface_jax.errors import UserError, extra
from uniface_jax.inference.model import Model


def load_model(path: Path | str, mirror: bool | None = None, input_scale: str = "auto") -> Model:
    """Load the model at `path`: an ONNX file, or a workdir of uniface_jax.train.

    Args:
        path: the file or folder; of a workdir the newest checkpoint is taken, and one of its
            checkpoints/STEP may be given.
        mirror: True adds the features of the mirrored images, False does not; None adds them,
            except where an ONNX file of this project says that it holds the sum already.
        input_scale: the pixels that an ONNX graph is fed, see onnx_model.load_onnx.

    Returns:
        The model, whose `embed` maps uint8 RGB images [B, 112, 112, 3] to features [B, D].

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
    if path.is_file():
        with extra("export"):
            from uniface_jax.inference.onnx_model import load_onnx

        return load_onnx(path, mirror, input_scale)
    if input_scale != "auto":
        raise UserError(
            f"input_scale={input_scale}: {path} is a workdir, whose input is known; "
            "only ONNX files take one"
        )
    # Not at the top: an ONNX file needs neither JAX nor the checkpoint library.
    from uniface_jax.inference.network import load_workdir

    return load_workdir(path, mirror=mirror is not False)

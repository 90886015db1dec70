"""Loads any model: a workdir of training, or an ONNX file."""

from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.inference.model import Model


def load_model(path: Path | str, mirror: bool | None = None, input_scale: str = "auto") -> Model:
    """The model at `path`: an ONNX file, or a workdir of uniface_jax.train.

    mirror: whether the feature is f(x) + f(mirrored x); None takes it, except where an ONNX file
    of this project says that it holds the sum already. input_scale: what an ONNX graph is fed, see
    onnx_model.load_onnx. Raises UserError naming the file when it cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such model; expected an ONNX file or a workdir of training")
    if path.is_file():
        from uniface_jax.inference.onnx_model import load_onnx

        return load_onnx(path, mirror, input_scale)
    if input_scale != "auto":
        raise UserError(
            f"input_scale={input_scale}: {path} is a workdir, whose input is known; "
            "only ONNX files take one"
        )
    from uniface_jax.inference.network import load_embedder

    with_mirror = mirror is not False
    embedder = load_embedder(str(path), mirror=with_mirror)
    return Model(
        embed=embedder.embed,
        name=path.resolve().name,
        hash=embedder.digest,
        description=f"workdir at step {embedder.step}, mirror sum: {_yes(with_mirror)}",
        plain=embedder.plain if with_mirror else None,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"

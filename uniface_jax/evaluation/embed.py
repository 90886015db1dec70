"""Features of images: any model behind one function, and the loop that runs it over a set."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.data import images as image_files
from uniface_jax.errors import UserError

SIZE = 112
Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Model:
    """A network that embeds aligned faces.

    embed: images uint8 RGB [B, 112, 112, 3] -> features float32 [B, D], the mirror sum included
    where it is asked for. name: what tables call it. hash: SHA-256, hexadecimal, of what was
    loaded. description: one line on what it is and how its input is prepared. plain: as embed, but
    of the images alone; None where `embed` adds no mirrored image that could be left out.
    """

    embed: Embed
    name: str
    hash: str
    description: str
    plain: Embed | None = None

    def embed_apart(self, images: np.ndarray) -> np.ndarray:
        """f(x) and f(mirrored x) side by side, float32 [B, 2 D], of a model that has `plain`."""
        assert self.plain is not None
        return np.concatenate([self.plain(images), self.plain(images[:, :, ::-1])], axis=1)


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
        from uniface_jax.evaluation.onnx_model import load_onnx

        return load_onnx(path, mirror, input_scale)
    if input_scale != "auto":
        raise UserError(
            f"input_scale={input_scale}: {path} is a workdir, whose input is known; "
            "only ONNX files take one"
        )
    from uniface_jax.inference import load_embedder

    with_mirror = mirror is not False
    embedder = load_embedder(str(path), mirror=with_mirror)
    return Model(
        embed=embedder.embed,
        name=path.resolve().name,
        hash=embedder.digest,
        description=f"workdir at step {embedder.step}, mirror sum: {_yes(with_mirror)}",
        plain=embedder.plain if with_mirror else None,
    )


def extract(
    embed: Embed,
    images: Sequence[bytes] | Sequence[np.ndarray],
    *,
    name: str,
    batch_size: int = 64,
    progress: bool = True,
) -> np.ndarray:
    """Features, float32 [N, D], of N images: encoded bytes, or uint8 RGB arrays [112, 112, 3].

    In batches of `batch_size`, see embedded. `name` is what errors and the progress bar (on a
    terminal) call the set.

    Raises UserError naming the image that does not decode or is not 112x112.
    """
    if not len(images):
        raise UserError(f"{name}: no images to embed")
    features: np.ndarray | None = None

    def pixels(index: int) -> np.ndarray:
        return checked_pixels(images[index], f"{name}: image {index}")

    shown = progress and sys.stderr.isatty()
    with tqdm(total=len(images), desc=name, unit=" images", disable=not shown) as bar:
        for start, found in embedded(embed, pixels, len(images), batch_size):
            if features is None:
                features = np.empty((len(images), found.shape[1]), np.float32)
            features[start : start + len(found)] = found
            bar.update(len(found))
    assert features is not None
    return features


def embedded(
    embed: Embed,
    pixels: Callable[[int], np.ndarray],
    count: int,
    batch_size: int,
    start: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of its first image, features float32 [<=batch_size, D]) of images start … count - 1.

    pixels: the number of an image -> uint8 RGB [112, 112, 3]; called by several threads at once.
    Every batch that `embed` sees has `batch_size` images, the last one padded, so that a compiled
    one sees one shape; the next batch is decoded meanwhile.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def submit(first: int) -> list[Future[np.ndarray]]:
            return [pool.submit(pixels, i) for i in range(first, min(first + batch_size, count))]

        ahead = submit(start)
        for first in range(start, count, batch_size):
            current, ahead = ahead, submit(first + batch_size)
            # A new array each time: JAX on CPU may still read from the one before.
            batch = np.zeros((batch_size, SIZE, SIZE, 3), np.uint8)
            for row, decoded in enumerate(current):
                batch[row] = decoded.result()
            yield first, np.asarray(embed(batch), np.float32)[: len(current)]


def checked_pixels(image: bytes | np.ndarray, name: str) -> np.ndarray:
    """uint8 RGB [112, 112, 3] of an encoded or decoded image; UserError by `name` for others."""
    pixels = image_files.decode(image, name) if isinstance(image, bytes) else image
    if pixels.shape != (SIZE, SIZE, 3) or pixels.dtype != np.uint8:
        size = "x".join(map(str, pixels.shape))
        raise UserError(
            f"{name} is {size} {pixels.dtype}, expected {SIZE}x{SIZE}x3 uint8: align the faces "
            "first (python -m uniface_jax.align)"
        )
    return pixels


def _yes(value: bool) -> str:
    return "yes" if value else "no"

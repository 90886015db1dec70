"""Inference with an ONNX file that anyone may have written, in onnxruntime."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnx
import onnxruntime

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError
from uniface_jax.inference.mirror import MIRROR_KEY, mirror_sum
from uniface_jax.inference.model import Embed, Model
from uniface_jax.inference.onnx_file import read_onnx
from uniface_jax.inference.onnx_ports import Input, Output, feature_output, image_input, width_of
from uniface_jax.inference.pixels import (
    CHANNEL_ORDERS,
    INPUT_SCALES,
    SHOWN,
    Pixels,
    choose_pixels,
    declaration,
    fed,
)
from uniface_jax.inference.probe import Answer, one_line, probe
from uniface_jax.inference.scale_probe import choose_scale

PROBE_IMAGES = 3
RUN_SECONDS = 600  # for one batch
# Of a feature, relative to its length: rounding differs with the batch, by less than this.
MAX_BATCH_EFFECT = {np.dtype(np.float16): 2e-2}
DEFAULT_MAX_BATCH_EFFECT = 1e-3
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class OnnxOptions:
    """Answers of a user about an ONNX file, where it does not say it itself.

    input_scale: of pixels.INPUT_SCALES; channel_order: of pixels.CHANNEL_ORDERS. output_name: of
    the features; None chooses by shape.
    """

    input_scale: str = "auto"
    channel_order: str = "auto"
    output_name: str | None = None


@dataclass(frozen=True)
class _Network:
    """A graph as a function of pixels, as a first run has shown it.

    layout: of Input.layouts. batch: the images of a run, None for any number. batch_effect: how
    much a feature changed with the other images of its batch, relative to its length.
    """

    path: Path
    session: Any
    input: Input
    output: Output
    layout: str
    batch: int | None
    batch_effect: float

    def features(self, images: np.ndarray, scale: str, order: str) -> np.ndarray:
        """Return features float32 [B, D] of images uint8 RGB [B, 112, 112, 3], any B."""
        parts = self.parts(images, scale, order)
        if self.batch is None:
            return self._run(parts[0])
        if self.batch == 1:  # one image does not keep several cores busy; the session has a thread
            with ThreadPoolExecutor(_cores()) as pool:
                return np.concatenate(list(pool.map(self._run, parts)))
        return np.concatenate([self._run(part) for part in parts])[: len(images)]

    def parts(self, images: np.ndarray, scale: str, order: str) -> list[np.ndarray]:
        """Return the pixels of each run: of one, or of a fixed batch each, the last padded."""
        pixels = _laid_out(fed(images, scale, order), self.layout, self.input.dtype)
        if self.batch is None:
            return [pixels]
        missing = -len(pixels) % self.batch
        padded = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
        return [padded[i : i + self.batch] for i in range(0, len(padded), self.batch)]

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        feeds = {self.input.name: np.ascontiguousarray(pixels)}
        bounds = onnxruntime.RunOptions()
        # Images may lead where the first run did not: into a loop. It ends between two nodes.
        watch = Timer(RUN_SECONDS, setattr, (bounds, "terminate", True))
        watch.daemon = True
        watch.start()
        try:
            (found,) = self.session.run([self.output.name], feeds, bounds)
        except Exception as e:  # onnxruntime's exceptions share no base class
            raise UserError(f"{self.path}: onnxruntime cannot run it ({one_line(str(e))})") from e
        finally:
            watch.cancel()
        if width_of(found.shape, len(pixels)) != self.output.width:
            raise UserError(
                f"{self.path}: output of shape {list(found.shape)} for {len(pixels)} images; "
                f"expected [batch, {self.output.width}]"
            )
        result: np.ndarray = found.reshape(len(pixels), -1).astype(np.float32, copy=False)
        return result


@dataclass(frozen=True)
class _Feeds:
    """Feeds (see model.Feeds) of a network, at its pixels."""

    network: _Network
    pixels: Pixels

    @property
    def batch(self) -> int | None:
        return self.network.batch

    @property
    def metadata(self) -> Mapping[str, str]:
        return declaration(self.pixels)

    def __call__(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        assert self.pixels.scale is not None
        parts = self.network.parts(images, self.pixels.scale, self.pixels.order)
        return [{self.network.input.name: np.ascontiguousarray(part)} for part in parts]


def load_onnx(
    path: Path, mirror: bool | None = None, options: OnnxOptions = OnnxOptions()
) -> Model:
    """Load a face network with one input of images of 112x112 and an output of features [B, D].

    The images are NCHW or NHWC, float32, float16, double or uint8, the batch of any size or fixed.
    Weights may lie beside the file. The graph is first run in a process of its own, within bounds
    of time and memory.

    Args:
        path: an ONNX file.
        mirror: True adds the features of the mirrored images here, False does not; None adds them
            unless the file's metadata say that they are inside.
        options: what the file does not say of itself. An input_scale of "unit" feeds
            (x - 127.5) / 127.5, "raw" 0..255, "zero_one" x / 255; "auto" reads the metadata and
            the graph's first nodes, and where these do not tell, the model is to be settled with
            faces (Model.settled).

    Raises:
        UserError: names the file when it is no ONNX model, wants files from elsewhere, has another
            input or output, or does not run within the bounds.
    """
    _check_options(options)
    file = read_onnx(path)
    network = _probed(path, file.model, options.output_name)
    _check_scale(network, options.input_scale)
    pixels = choose_pixels(
        file.model,
        network.input.name,
        network.layout,
        options.input_scale,
        options.channel_order,
    )
    inside = {p.key: p.value for p in file.model.metadata_props}.get(MIRROR_KEY) == "1"
    outside = not inside if mirror is None else mirror
    base = Model(
        embed=_unsettled(path),
        name=path.stem,
        hash=file.digest,
        description=f"; mirror sum: {'computed here' if outside else _inside(inside)}",
        notes=_batch_notes(network),
    )
    if pixels.scale is not None:
        return _with_pixels(base, network, pixels, outside)

    return replace(
        base,
        description=_describe(network, pixels) + base.description,
        settle=partial(_settled, base, network, pixels, outside),
    )


def _settled(
    base: Model, network: _Network, pixels: Pixels, mirror: bool, faces: np.ndarray
) -> Model:
    """Return `base` with the functions that feed `network` at the scale that faces tell."""

    def features_at(images: np.ndarray, scale: str) -> np.ndarray:
        return network.features(images, scale, pixels.order)

    choice = choose_scale(features_at, faces)
    if choice.scale is None:
        raise UserError(
            f"{network.path}: neither its graph nor the faces tell which pixels it wants "
            f"({choice.describe()}); say it by --input_scale=unit, raw or zero_one"
        )
    decided = pixels.decided(choice.scale, "by the faces' features")
    settled = _with_pixels(base, network, decided, mirror)
    if not np.isfinite(list(choice.spreads.values())).all():
        return settled  # which features of no use will be refused for
    note = f"input {SHOWN[choice.scale]}, as faces tell: {choice.describe()} (--input_scale)"
    return replace(settled, notes=(note,))


def _check_options(options: OnnxOptions) -> None:
    for key, value, allowed in (
        ("input_scale", options.input_scale, INPUT_SCALES),
        ("channel_order", options.channel_order, CHANNEL_ORDERS),
    ):
        if value not in allowed:
            raise UserError(f"{key}={value}: expected one of {', '.join(allowed)}")


def _check_scale(network: _Network, scale: str) -> None:
    if network.input.dtype == np.uint8 and scale not in ("auto", "raw"):
        raise UserError(
            f"{network.path}: input_scale={scale}: its input is uint8; expected auto or raw"
        )


def _with_pixels(base: Model, network: _Network, pixels: Pixels, mirror: bool) -> Model:
    """Return `base` with the functions that feed `network` these pixels."""
    scale, order = pixels.scale, pixels.order
    assert scale is not None

    def run(images: np.ndarray) -> np.ndarray:
        return network.features(images, scale, order)

    return replace(
        base,
        embed=mirror_sum(run) if mirror else run,
        plain=run if mirror else None,
        feeds=_Feeds(network, pixels),
        description=_describe(network, pixels) + base.description,
    )


def _describe(network: _Network, pixels: Pixels) -> str:
    batch = f"batch of {network.batch or 'any size'}"
    return f"ONNX, {network.layout}, {batch}, {network.output.width} features; {pixels.describe()}"


def _inside(inside: bool) -> str:
    return "in the graph" if inside else "no"


def _unsettled(path: Path) -> Embed:
    def embed(images: np.ndarray) -> np.ndarray:
        raise UserError(f"{path}: its input scale is not settled; call Model.settled with faces")

    return embed


def _batch_notes(network: _Network) -> tuple[str, ...]:
    if network.batch_effect <= _most_effect(network.input):
        return ()
    how = "one by one" if network.batch == 1 else f"in batches of {network.batch}"
    return (
        f"WARNING: its features depend on the other images of a batch, by "
        f"{network.batch_effect:.1%} of their length; embedded {how}",
    )


def _most_effect(given: Input) -> float:
    return MAX_BATCH_EFFECT.get(given.dtype, DEFAULT_MAX_BATCH_EFFECT)


def _probed(path: Path, model: onnx.ModelProto, output_name: str | None) -> _Network:
    """Run the model in another process, and return it as that shows it."""
    given = image_input(path, model.graph)
    try:
        content = model.SerializeToString()
    except Exception as e:  # protobuf's EncodeError: over 2 GB
        raise UserError(f"{path}: too large with its weights ({one_line(str(e))})") from e
    for layout in given.layouts:
        alone, among = _probe_images(given)
        feeds = [_laid_out(images, layout, given.dtype) for images in (alone, among)]
        first, second = probe(path, content, given.name, feeds)
        if first.error is None or layout == given.layouts[-1]:
            break
    if first.error is not None:
        raise UserError(f"{path}: onnxruntime cannot run it ({first.error})")
    graph = model.graph
    output = feature_output(path, graph, dict(first.shapes), len(alone), output_name)
    whole = (
        second.error is None
        and width_of(second.shapes.get(output.index, ()), len(among)) == output.width
    )
    effect = _batch_effect(first, second, output.index) if whole else 0.0
    batch = given.batch
    if batch is None and (not whole or effect > _most_effect(given)):
        batch = 1
    session = _session(path, content, threads=1 if batch == 1 else 0)
    return _Network(path, session, given, output, layout, batch, effect)


def _probe_images(given: Input) -> tuple[np.ndarray, np.ndarray]:
    """Return noise of the input's range: one image alone, or only with its like, and among others.

    The batch size is that of the graph, or 1 and PROBE_IMAGES.
    """
    shape = (given.batch or PROBE_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3)
    low, high = (0, 255) if given.dtype == np.uint8 else (-1, 1)
    among = np.random.default_rng(0).uniform(low, high, shape)
    return np.repeat(among[:1], given.batch or 1, axis=0), among


def _batch_effect(alone: Answer, among: Answer, index: int) -> float:
    """Return |f alone - f among others| / |f| of the first image, 0 where that is not finite."""
    if index not in alone.values or index not in among.values:
        return 0.0
    first, second = (np.asarray(a.values[index][0], np.float64).ravel() for a in (alone, among))
    with np.errstate(all="ignore"):  # features of no use are refused where faces give them
        length = max(np.linalg.norm(first), np.linalg.norm(second))
        effect = float(np.linalg.norm(first - second) / length)
    return effect if np.isfinite(effect) else 0.0


def _laid_out(pixels: np.ndarray, layout: str, dtype: np.dtype) -> np.ndarray:
    """Return pixels [B, H, W, 3] in a graph's layout and type."""
    if dtype == np.uint8:
        pixels = np.clip(np.rint(pixels), 0, 255)
    laid_out = pixels.transpose(0, 3, 1, 2) if layout == "NCHW" else pixels
    return laid_out.astype(dtype, copy=False)


def _session(path: Path, content: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    options.intra_op_num_threads = threads
    available = onnxruntime.get_available_providers()
    providers: Sequence[str] = [p for p in _PROVIDERS if p in available]
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as e:  # onnxruntime's exceptions share no base class
        raise UserError(f"{path}: onnxruntime refuses it ({one_line(str(e))})") from e


def _cores() -> int:
    return len(os.sched_getaffinity(0))

"""The pixels that a network is fed: their scale and the order of their colors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from uniface_jax.inference.leading_arithmetic import (
    RANGES,
    leading_arithmetic,
    order_for,
    scale_for,
)
from uniface_jax.inference.mirror import MIRROR_KEY

INPUT_SCALES = ("auto", *RANGES)
CHANNEL_ORDERS = ("auto", "rgb", "bgr")
SHOWN = {"unit": "(x-127.5)/127.5", "raw": "0..255", "zero_one": "x/255"}
# Metadata of images as ONNX defines them (docs/MetadataProps.md of its repository).
_RANGE_KEY, _FORMAT_KEY = "Image.NominalPixelRange", "Image.BitmapPixelFormat"
_RANGES = {"NominalRange_0_255": "raw", "Normalized_0_1": "zero_one", "Normalized_1_1": "unit"}
_FORMATS = {"Rgb8": "rgb", "Bgr8": "bgr"}


@dataclass(frozen=True)
class Pixels:
    """A choice of pixels, and why.

    scale: of leading_arithmetic.RANGES; None where nothing but faces can tell. order: "rgb" or
    "bgr". scale_from, order_from: what they follow from, in words.
    """

    scale: str | None
    order: str
    scale_from: str
    order_from: str

    def describe(self) -> str:
        """Return both in a few words: what is fed, and what tells so."""
        if self.scale is None:
            return f"input {self.order.upper()} ({self.order_from}), at the scale that faces tell"
        scale = SHOWN[self.scale]
        return f"input {self.order.upper()} ({self.order_from}), {scale} ({self.scale_from})"

    def decided(self, scale: str, scale_from: str) -> "Pixels":
        """Return the choice with this scale."""
        return replace(self, scale=scale, scale_from=scale_from)


def choose_pixels(model: onnx.ModelProto, name: str, layout: str, scale: str, order: str) -> Pixels:
    """Choose by what was asked for, by the model's metadata and type, and by its first nodes.

    name, layout: of the input of images. scale, order: of INPUT_SCALES and CHANNEL_ORDERS.
    """
    read = leading_arithmetic(model.graph, name, layout)
    scale_from = order_from = "as asked"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if scale == "auto":
        scale, scale_from = _declared_scale(model, name, metadata)
        if not scale and read and (told := scale_for(read)):
            scale, scale_from = told, f"the graph begins with {read.describe()}"
    if order == "auto":
        order, order_from = _declared_order(metadata)
        if not order and read and (told := order_for(read)):
            order, order_from = told, "by the means that the graph subtracts"
        if not order:
            order, order_from = "rgb", "by default"
    return Pixels(scale or None, order, scale_from, order_from)


def declaration(pixels: Pixels) -> dict[str, str]:
    """Return the metadata by which choose_pixels makes this choice, of pixels whose scale is known.

    >>> declaration(Pixels("raw", "bgr", "as asked", "as asked"))
    {'Image.NominalPixelRange': 'NominalRange_0_255', 'Image.BitmapPixelFormat': 'Bgr8'}
    """
    ranges = {scale: name for name, scale in _RANGES.items()}
    formats = {order: name for name, order in _FORMATS.items()}
    assert pixels.scale is not None
    return {_RANGE_KEY: ranges[pixels.scale], _FORMAT_KEY: formats[pixels.order]}


def fed(images: np.ndarray, scale: str, order: str) -> np.ndarray:
    """Return images uint8 RGB [B, H, W, 3] at a scale and in an order, float32.

    >>> fed(np.array([[[[0, 51, 255]]]], np.uint8), "zero_one", "bgr").ravel().tolist()
    [1.0, 0.20000000298023224, 0.0]
    """
    pixels: np.ndarray = (images[..., ::-1] if order == "bgr" else images).astype(np.float32)
    if scale == "unit":
        pixels = (pixels - 127.5) / 127.5
    elif scale == "zero_one":
        pixels = pixels / 255
    return pixels


def _declared_scale(
    model: onnx.ModelProto, name: str, metadata: Mapping[str, str]
) -> tuple[str, str]:
    """Return the scale that metadata or the input's type say, and which does; "" for neither."""
    if MIRROR_KEY in metadata:  # an export of this project
        return "unit", "by its metadata"
    if metadata.get(_RANGE_KEY) in _RANGES:
        return _RANGES[metadata[_RANGE_KEY]], "by its metadata"
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    if kinds.get(name) == onnx.TensorProto.UINT8:
        return "raw", "its input is uint8"
    return "", ""


def _declared_order(metadata: Mapping[str, str]) -> tuple[str, str]:
    if MIRROR_KEY in metadata:
        return "rgb", "by its metadata"
    return _FORMATS.get(metadata.get(_FORMAT_KEY, ""), ""), "by its metadata"

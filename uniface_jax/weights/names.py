"""Names, shapes and layouts of the networks' PyTorch implementations, against this project's.

"release" is the LResNet-E-IR of UniFace's authors (github.com/CVI-SZU/UniFace, backbone.py),
"insightface" the iresnet, vit and mobilefacenet of arcface_torch
(github.com/deepinsight/insightface, recognition/arcface_torch/backbones), "cvlface" the vit_kprpe
of CVLface (github.com/mk-minchul/CVLface, models/vit_kprpe).
All keep convolutions as [out, in, h, w] and linear layers as [out, in], and the IR-ResNets flatten
the last map channel by channel; here they are [h, w, in, out] and [in, out], and the map is
flattened position by position.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.models.iresnet import IResNet
from uniface_jax.models.kprpe import KPRPE
from uniface_jax.models.mobilefacenet import MobileFaceNet
from uniface_jax.models.vit import ViT

TorchNetwork = IResNet | ViT | KPRPE | MobileFaceNet  # those that have a PyTorch implementation


@dataclass(frozen=True)
class Family:
    """A PyTorch implementation's names of modules, where they differ from the names here."""

    name: str
    networks: str  # prefix in models.NETWORKS
    block: Mapping[str, str]  # inside of a residual block
    outside: Mapping[str, str]
    flat_tail: bool  # the linear layer is [D, C h w], not a convolution [D, C, h, w]


RELEASE = Family("release", "lresnet", {}, {}, flat_tail=False)
INSIGHTFACE = Family(
    "insightface",
    "iresnet",
    block={"bn0": "bn1", "bn1": "bn2", "bn2": "bn3"},
    outside={"bn4": "bn2", "fc5": "fc", "bn5": "features"},
    flat_tail=True,
)
CVLFACE = Family("cvlface", "vit_kprpe", {}, {}, flat_tail=False)
_FIELDS = {"mean": "running_mean", "var": "running_var", "bias": "bias"}  # all others: weight
MASK_TOKEN = "mask_token"
_WHOLE = ("pos_embed", MASK_TOKEN)  # parameters of a module, not of a layer


@dataclass(frozen=True)
class Slot:
    """Place of a PyTorch tensor of `shape`: variables[collection][path[0]][path[1]]…."""

    shape: tuple[int, ...]
    collection: str
    path: tuple[str, ...]
    positions: int  # of the last map's side, for the linear layer; 0 elsewhere

    @property
    def place(self) -> str:
        """Return the place by its name in the report of an import."""
        return "/".join((self.collection, *self.path))

    def to_jax(self, array: np.ndarray) -> np.ndarray:
        """Return the tensor in this project's layout."""
        if self.positions:
            width = array.size // (array.shape[0] * self.positions**2)
            array = array.reshape(-1, width, self.positions, self.positions)
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        return array.reshape(-1, array.shape[-1]) if self.positions else array

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Return the array in PyTorch's layout: the inverse of to_jax."""
        if self.positions:
            array = array.reshape(self.positions, self.positions, -1, array.shape[-1])
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        return array.reshape(self.shape)


def layout(network: TorchNetwork) -> dict[str, Slot]:
    """List every variable of `network` by its PyTorch name; no array is made."""
    params, batch_stats = _shapes(network, models.IMAGE_SIZE)
    slots = {}
    for collection, tree in (("params", params), ("batch_stats", batch_stats)):
        for keys, value in jax.tree_util.tree_leaves_with_path(tree):
            path = tuple(key.key for key in keys)
            name, positions, shape = _named(network, path), 0, value.shape
            if isinstance(network, IResNet) and path == ("fc5", "kernel"):
                shape, positions = _tail(network, shape)
            elif len(shape) == 4:
                shape = (shape[3], shape[2], shape[0], shape[1])
            elif len(shape) == 2:
                shape = shape[::-1]
            slots[name] = Slot(shape, collection, path, positions)
    return slots


@lru_cache(maxsize=64)
def _shapes(network: TorchNetwork, image_size: int) -> tuple[Any, Any]:
    """Return those of all variables; not to be changed: tracing takes seconds, and is done once.

    image_size: what models.IMAGE_SIZE is now, which the last map's size goes by.
    """
    shapes: tuple[Any, Any] = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    return shapes


def _tail(network: IResNet, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the PyTorch shape of an IResNet's linear layer, and the side of its last map."""
    channels = network.width * 8
    side = math.isqrt(shape[0] // channels)
    if family_of(network).flat_tail:
        return shape[::-1], side
    return (shape[1], channels, side, side), side


def _named(network: TorchNetwork, path: tuple[str, ...]) -> str:
    """Return the PyTorch name of the variable at `path`."""
    if isinstance(network, IResNet):
        return torch_name(family_of(network), path)
    *modules, field = path
    numbered = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
    return ".".join([*numbered, field if field in _WHOLE else _FIELDS.get(field, "weight")])


def in_pytorch(network: models.Network) -> TorchNetwork:
    """Return `network`, once it is known to have a PyTorch implementation; UserError for others."""
    if isinstance(network, TorchNetwork):
        return network
    raise UserError(
        f"the network {getattr(network, 'name', network)} is from outside and has no PyTorch "
        "implementation to name its weights by; write it in another format, such as ONNX"
    )


def family_of(network: TorchNetwork) -> Family:
    """Return the family whose PyTorch implementation computes what `network` does."""
    if isinstance(network, KPRPE):
        return CVLFACE
    return RELEASE if isinstance(network, IResNet) and not network.tail_bias else INSIGHTFACE


def to_state(network: TorchNetwork, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return `variables` as the state dict of the network's PyTorch implementation, headless.

    An IResNet's fixed scale of the last batch norm is written as ones: PyTorch holds it.
    """
    state = {}
    for name, slot in layout(network).items():
        value = variables[slot.collection]
        for key in slot.path:
            value = value[key]
        state[name] = slot.to_torch(np.asarray(value))
    if isinstance(network, IResNet):
        last = torch_name(family_of(network), ("bn5", "bias"))
        state[last.replace("bias", "weight")] = np.ones_like(state[last])
    return state


def in_cvlface(network: TorchNetwork, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arcface_torch's state dict of a ViT as CVLface's, whose network is inside of "net".

    Its mask token is there only for a network that masks. Raises UserError for another network.
    """
    if not isinstance(network, ViT | KPRPE):
        raise UserError("--cvlface: only for a ViT; CVLface's other networks are none of these")
    masked = isinstance(network, ViT) and network.mask_ratio > 0
    return {f"net.{name}": x for name, x in state.items() if masked or name != MASK_TOKEN}


def torch_name(family: Family, path: tuple[str, ...]) -> str:
    """Return the PyTorch name of the variable at `path`: modules and leaf, as in Slot.path."""
    *modules, field = path
    field = _FIELDS.get(field, "weight")
    if len(modules) == 1:
        return f"{family.outside.get(modules[0], modules[0])}.{field}"
    stage, index = modules[0].split("_")
    inner = family.block.get(modules[1], modules[1]).replace("_", ".")  # downsample_0
    return f"{stage}.{index}.{inner}.{field}"

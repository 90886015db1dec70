"""Kinds of networks that are recognized: the names that tell each, and its sizes by shapes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from uniface_jax import models
from uniface_jax.errors import UserError
from uniface_jax.models.iresnet import IResNet
from uniface_jax.models.kprpe import BUCKETS, create_kprpe
from uniface_jax.models.kprpe import VARIANTS as KPRPES
from uniface_jax.models.mobilefacenet import VARIANTS as MOBILEFACENETS
from uniface_jax.models.mobilefacenet import create_mobilefacenet
from uniface_jax.models.vit import VARIANTS as VITS
from uniface_jax.models.vit import create_vit
from uniface_jax.weights.names import (
    CVLFACE,
    INSIGHTFACE,
    MASK_TOKEN,
    RELEASE,
    Family,
    Slot,
    TorchNetwork,
    family_of,
    layout,
    torch_name,
)
from uniface_jax.weights.selection import State

_ARCFACE_HEADS = 8  # of all of arcface_torch's ViTs, which have patches of 9 and MLPs of ratio 4
# CVLface's ViT without KP-RPE: (dim, depth, patch, mlp_ratio) -> heads.
_CVLFACE_HEADS = {(512, 12, 8, 5): 8, (512, 24, 8, 3): 16}


@dataclass(frozen=True)
class Found:
    """A network that was recognized.

    model: what config.model is to hold. slots: of its tensors by PyTorch's names. described: how
    errors call it.
    """

    family: str
    model: dict[str, Any]
    network: TorchNetwork
    slots: Mapping[str, Slot]
    described: str


@dataclass(frozen=True)
class Kind:
    """One kind of network.

    title: how an error lists it. marks: names of tensors that tell it, the first of which says
    where its names begin. find: state dict, source and number of heads -> Found; None for a state
    dict whose marks have other shapes.
    """

    title: str
    marks: tuple[str, ...]
    find: Callable[[State, str, int | None], Found | None]


def recognized(state: State, source: str, heads: int | None) -> Found:
    """Return the network whose tensors `state` holds, by its own names.

    Raises UserError for one of another kind, for a ViT whose number of heads is not known, and for
    `heads` of another network or that do not divide a ViT's tokens.
    """
    for kind in KINDS:
        if not set(kind.marks) <= state.keys():
            continue
        if found := kind.find(state, source, heads):
            return found
    names = ", ".join(list(state)[:3])
    raise UserError(
        f"{source}: not a network of this project ({len(state)} tensors: {names}, …); expected "
        f"{', '.join(kind.title for kind in KINDS[:-1])} or {KINDS[-1].title}"
    )


def _refuse_heads(heads: int | None, source: str, described: str) -> None:
    if heads is not None:
        raise UserError(f"{source}: --heads={heads}: only for a ViT; this is {described}")


def _iresnet_marks(family: Family) -> tuple[str, ...]:
    return (
        "conv1.weight",
        torch_name(family, ("fc5", "kernel")),
        torch_name(family, ("bn5", "mean")),
        "layer1.0.prelu.weight",
    )


def _find_iresnet(family: Family, state: State, source: str, heads: int | None) -> Found | None:
    stem, tail = state["conv1.weight"], state[torch_name(family, ("fc5", "kernel"))]
    if stem.shape[1:] != (3, 3, 3) or not stem.size or tail.ndim < 2 or not tail.size:
        return None
    blocks = [re.fullmatch(r"layer([1-4])\.(\d+)\.conv1\.weight", name) for name in state]
    stage_of_block = [match[1] for match in blocks if match]
    sizes = tuple(stage_of_block.count(stage) for stage in "1234")
    registered = [
        name
        for name, (_, stage_sizes) in models.NETWORKS.items()
        if name.startswith(family.networks) and stage_sizes == sizes
    ]
    model: dict[str, Any] = {
        "name": registered[0] if registered else f"{family.networks}50",
        "stage_sizes": None if registered else sizes,
        "width": stem.shape[0],
        "embedding_size": tail.shape[0],
    }
    network, slots = _fitting_stem(model, state)
    described = f"{family.name}'s {model['name']} of width {network.width}"
    _refuse_heads(heads, source, described)
    return Found(family.name, model, network, slots, described)


def _fitting_stem(model: dict[str, Any], state: State) -> tuple[IResNet, dict[str, Slot]]:
    """Return the network whose stem gives the linear layer its size, entered into `model`.

    Where neither does it is the published one, and the linear layer's shape is the error.
    """
    for stride in (2, 1):
        model["stem_stride"] = stride
        network = models.create_iresnet(**model)
        slots = layout(network)
        tail = next(name for name, slot in slots.items() if slot.positions)
        if tail in state and state[tail].shape == slots[tail].shape:
            break
    return network, slots


_VIT_MARKS = (
    "patch_embed.proj.weight",
    "pos_embed",
    "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc1.weight",
    "feature.2.weight",
)


class _VitSizes(NamedTuple):
    """Sizes of a ViT that its tensors tell; features: of the result."""

    dim: int
    patch: int
    depth: int
    mlp_ratio: int
    features: int


def _vit_sizes(state: State) -> _VitSizes | None:
    """Return the sizes by the tensors of _VIT_MARKS; None where those have other shapes."""
    patches, hidden, last = (state[_VIT_MARKS[place]] for place in (0, 3, 4))
    dim, patch = (patches.shape[0], patches.shape[-1]) if patches.ndim == 4 else (0, 0)
    square = patches.shape[1:] == (3, patch, patch) and 0 < patch <= models.IMAGE_SIZE
    if not square or not patches.size or hidden.ndim != 2 or last.ndim != 2 or not last.size:
        return None
    depth = _blocks(state, r"blocks\.(\d+)\.attn\.qkv\.weight")
    return _VitSizes(dim, patch, depth, max(hidden.shape[0] // dim, 1), last.shape[0])


def _find_vit(state: State, source: str, heads: int | None) -> Found | None:
    if not (sizes_found := _vit_sizes(state)):
        return None
    dim, patch, depth, ratio, features = sizes_found
    named = [name for name, sizes in VITS.items() if (sizes["dim"], sizes["depth"]) == (dim, depth)]
    described = f"insightface's ViT of {depth} blocks and {dim} channels"
    if heads is None:
        heads = _CVLFACE_HEADS.get((dim, depth, patch, ratio))
        if heads is None and named and (patch, ratio) == (9, 4):
            heads = _ARCFACE_HEADS
    if heads is None:
        raise UserError(
            f"{source}: {described}, patches of {patch} and MLP ratio {ratio} is no published one, "
            "and its number of heads is not in its weights; give --heads"
        )
    if heads < 1 or dim % heads:
        raise UserError(f"{source}: --heads={heads}: must divide the {dim} channels of {described}")
    model: dict[str, Any] = {
        "name": named[0] if named else "vit_t",
        "embedding_size": features,
        "vit": {"heads": heads, "patch": patch, "mlp_ratio": ratio},
    }
    if not named:
        model["vit"] |= {"dim": dim, "depth": depth}
    if MASK_TOKEN not in state:  # CVLface's has none where it trained without a mask
        model["vit"] |= {"mask_ratio": 0.0}
    network = create_vit(model["name"], embedding_size=features, **model["vit"])
    return Found("insightface", model, network, layout(network), described)


_KPRPE_MARKS = (*_VIT_MARKS, "keypoint_linear.weight")


def _find_kprpe(state: State, source: str, heads: int | None) -> Found | None:
    """Find CVLface's ViT with KP-RPE, whose heads its keypoint_linear tells."""
    if not (sizes_found := _vit_sizes(state)):
        return None
    dim, patch, depth, ratio, features = sizes_found
    linear = state[_KPRPE_MARKS[-1]]
    if linear.ndim != 2 or not linear.size or linear.shape[0] % (BUCKETS * depth):
        return None
    told = linear.shape[0] // (BUCKETS * depth)
    described = f"CVLface's ViT with KP-RPE of {depth} blocks, {dim} channels and {told} heads"
    if heads not in (None, told) or dim % told:
        raise UserError(
            f"{source}: {described}; expected heads that divide the channels, and no other --heads"
        )
    sizes = {"depth": depth, "heads": told, "mlp_ratio": ratio}
    named = [name for name, known in KPRPES.items() if known == sizes]
    model: dict[str, Any] = {
        "name": named[0] if named else "vit_kprpe_base",
        "embedding_size": features,
        "kprpe": {"patch": patch, "dim": dim} | ({} if named else sizes),
    }
    network = create_kprpe(model["name"], embedding_size=features, **model["kprpe"])
    return Found(CVLFACE.name, model, network, layout(network), described)


_MBF_MARKS = (
    "conv_sep.layers.0.weight",
    "layers.0.layers.0.weight",
    "features.layers.2.weight",
    "features.layers.3.running_mean",
)


def _find_mobilefacenet(state: State, source: str, heads: int | None) -> Found | None:
    stem, last = state[_MBF_MARKS[1]], state[_MBF_MARKS[2]]
    if stem.shape[1:] != (3, 3, 3) or not stem.size or stem.shape[0] % 64:
        return None
    # Of one block the first stage is a single convolution, which has no such names.
    stages = [_blocks(state, rf"layers\.{n}\.layers\.(\d+)\.layers\.0\.layers\.0\.weight")
              for n in (1, 3, 5, 7)]  # fmt: skip
    blocks, scale = (stages[0] or 1, *stages[1:]), stem.shape[0] // 64
    if not all(blocks) or last.ndim != 2 or not last.size:
        return None
    sizes = {"blocks": blocks, "scale": scale}
    named = [name for name, known in MOBILEFACENETS.items() if known == sizes]
    model: dict[str, Any] = {
        "name": named[0] if named else "mbf",
        "embedding_size": last.shape[0],
    }
    if not named:
        model["mobilefacenet"] = sizes
    described = f"insightface's MobileFaceNet of {'-'.join(map(str, blocks))} blocks, scale {scale}"
    _refuse_heads(heads, source, described)
    network = create_mobilefacenet("mbf", embedding_size=last.shape[0], **sizes)
    return Found("insightface", model, network, layout(network), described)


def _blocks(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _iresnet(family: Family, title: str) -> Kind:
    def find(state: State, source: str, heads: int | None) -> Found | None:
        return _find_iresnet(family, state, source, heads)

    return Kind(title, _iresnet_marks(family), find)


KINDS = (
    _iresnet(RELEASE, "the release's LResNet-E-IR"),
    _iresnet(INSIGHTFACE, "insightface's iresnet"),
    Kind("CVLface's ViT with KP-RPE", _KPRPE_MARKS, _find_kprpe),
    Kind("its ViT", _VIT_MARKS, _find_vit),
    Kind("its MobileFaceNet", _MBF_MARKS, _find_mobilefacenet),
)


def fixed_scale(found: Found) -> str:
    """Return the name of a scale that PyTorch holds and is 1 here, "" where there is none."""
    if not isinstance(found.network, IResNet):
        return ""
    return torch_name(family_of(found.network), ("bn5", "scale"))


def filled(found: Found, state: State) -> dict[str, np.ndarray]:
    """Return values of tensors that the network has and such a state dict may lack, by name."""
    if MASK_TOKEN in found.slots and MASK_TOKEN not in state:
        return {MASK_TOKEN: np.zeros(found.slots[MASK_TOKEN].shape, np.float32)}
    return {}

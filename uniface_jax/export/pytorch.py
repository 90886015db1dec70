"""Weights under the names of their PyTorch implementations, as .safetensors or as .pth.

A state dict of the network alone loads strictly in that implementation. A head goes where its
training scripts keep it: the release's inside of the network, arcface_torch's beside it, a .pth
then being such a checkpoint.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints.reading import read_head
from uniface_jax.errors import UserError, extra
from uniface_jax.files.atomic import write_bytes
from uniface_jax.weights.heads import head_state
from uniface_jax.weights.names import RELEASE, family_of, in_cvlface, in_pytorch, to_state
from uniface_jax.weights.state_files import ARCFACE_HEAD, write_safetensors


@dataclass(frozen=True)
class Form:
    """Form of a file of weights.

    format: "safetensors" or "pth". cvlface: by CVLface's form. with_head: with the head's too.
    """

    format: str
    cvlface: bool = False
    with_head: bool = False


def write_weights(
    network: models.Network,
    variables: Mapping[str, Any],
    output: Path,
    form: Form,
    facts: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """Write the network's weights to `output`; say what was written.

    facts: of the checkpoint, from load_network. metadata: for a .safetensors. Raises UserError for
    a network without a PyTorch implementation, or none in CVLface, and for a checkpoint without the
    head that `form` wants.
    """
    known = in_pytorch(network)
    family = family_of(known).name
    head = _head(family, facts) if form.with_head else {}
    state = to_state(known, variables)
    if form.cvlface:
        state, family = in_cvlface(known, state), "cvlface"
    if form.format == "pth":
        _write_pth(output, state, head)
    else:
        write_safetensors(output, state | head, {**metadata, "uniface_jax.family": family})
    return {
        "path": str(output),
        "family": family,
        "tensors": len(state) + len(head),
        "bytes": output.stat().st_size,
    }


def _head(family: str, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    workdir, step, run = facts["workdir"], facts["step"], facts["run"]
    if not run["data"].get("num_classes"):
        raise UserError(f"{workdir}: --with_head: has none, as it was imported without one")
    prototypes, bias = read_head(workdir / "checkpoints" / str(step))
    if prototypes.ndim == 3:
        if family == RELEASE.name:
            raise UserError(
                f"{workdir}: --with_head: has {prototypes.shape[1]} prototypes a class "
                "(config.head.subcentres), which the release's head cannot have"
            )
        # Row c * K + k is prototype k of class c, as in insightface's sub-center ArcFace.
        prototypes = prototypes.reshape(-1, prototypes.shape[-1])
    loss = configs.create_loss(configs.from_json(run["config"], workdir))
    return head_state(family, prototypes, None if loss.bias == "none" else bias)


def _write_pth(path: Path, state: Mapping[str, np.ndarray], head: Mapping[str, np.ndarray]) -> None:
    """Write a state dict, or arcface_torch's checkpoint, which torch.load takes as weights only."""
    with extra("torch"):
        import torch

    def tensors(arrays: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, Any]:
        return {
            name.removeprefix(prefix): torch.from_numpy(np.array(array, order="C"))
            for name, array in arrays.items()
        }

    content: dict[str, Any]
    if any(name.startswith(ARCFACE_HEAD) for name in head):
        beside = tensors(head, f"{ARCFACE_HEAD}.")
        content = {"state_dict_backbone": tensors(state), ARCFACE_HEAD: beside}
    else:
        content = tensors({**state, **head})
    # Not to the path itself, whose name would go into the file.
    written = io.BytesIO()
    torch.save(content, written)
    write_bytes(path, written.getvalue())

"""Whole PyTorch modules in a file, as UniFace's release saves them, to their state dict.

The release's train.py keeps each epoch as `torch.save(net, "…_epoch.pth")`: a pickle that names
classes of the release and of torch.nn. It is read by PyTorch's own restricted unpickler, in which
those names, and no others, stand for one class here that does nothing but hold what it is given: no
code of the file's, of the release's or of torch.nn's modules runs.
"""

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError

# Of github.com/CVI-SZU/UniFace, train.py, backbone.py and head.py, and what these are made of.
_CLASSES = (
    "backbone.LResNetXEIR",
    "backbone.IRBlock",
    "head.Normalized_BCE_Loss",
    "head.Normalized_Softmax_Loss",
    "head.Unified_Cross_Entropy_Loss",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.activation.PReLU",
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.parallel.data_parallel.DataParallel",
)
_MAX_DEPTH = 16  # modules in modules; the release's are four deep


class _Module:
    """Stands for every class above; unpickling fills its __dict__ and calls nothing."""


def load(path: Path, torch: Any) -> Any:
    """Load `path` by torch.load with weights_only; a module of the release as a state dict.

    Raises UserError for a file that names anything else, and for a module that is not built as
    torch.nn's are; what torch.load raises for one that is damaged.
    """
    try:
        with torch.serialization.safe_globals([(_Module, name) for name in _CLASSES]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        # PyTorch's message is a page that advises to run what is in the file.
        if not (named := re.search(r"GLOBAL ([\w.]+)", str(e))):
            raise
        raise UserError(
            f"{path}: holds {named[1]}, which is not run; allowed are tensors, plain values and "
            "the modules of UniFace's release (save the state_dict() instead)"
        ) from e
    return dict(_tensors(loaded, "", path)) if isinstance(loaded, _Module) else loaded


def _tensors(module: _Module, prefix: str, path: Path, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield (name, tensor) of parameters and buffers, as torch.nn.Module.state_dict names them."""
    content: dict[str, Any] = vars(module)
    groups = [content.get(key) for key in ("_parameters", "_buffers", "_modules")]
    whole = [group for group in groups if isinstance(group, Mapping)]
    if depth > _MAX_DEPTH or len(whole) < len(groups):
        raise UserError(f"{path}: {prefix or 'the module'} is not built as PyTorch's modules are")
    parameters, buffers, modules = whole
    for name, tensor in {**parameters, **buffers}.items():
        if tensor is not None:  # a bias that was left out
            yield f"{prefix}{name}", tensor
    for name, inner in modules.items():
        if isinstance(inner, _Module):  # None where there is no shortcut
            yield from _tensors(inner, f"{prefix}{name}.", path, depth + 1)

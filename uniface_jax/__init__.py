"""UniFace (Unified Cross-Entropy loss for face recognition, ICCV 2023) in JAX and Flax.

The public names; each is imported on first use, so that importing the package stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniface_jax import losses, models
    from uniface_jax.data.input.augment import register_augmentation
    from uniface_jax.data.sources.opening import open_source, register_source
    from uniface_jax.evaluate.protocols import register_protocol
    from uniface_jax.gallery.store import Gallery
    from uniface_jax.inference.embedder import Embedder
    from uniface_jax.losses import register_loss
    from uniface_jax.models import register_network
    from uniface_jax.registry import Range
    from uniface_jax.runtime.hooks import Hook, register_hook
    from uniface_jax.train.loop import train_and_evaluate

__version__ = "0.2.0"
__all__ = [
    "Embedder",
    "Gallery",
    "Hook",
    "Range",
    "__version__",
    "losses",
    "models",
    "open_source",
    "register_augmentation",
    "register_hook",
    "register_loss",
    "register_network",
    "register_protocol",
    "register_source",
    "train_and_evaluate",
]

_MODULES = {
    "Embedder": "inference.embedder",
    "Gallery": "gallery.store",
    "Hook": "runtime.hooks",
    "Range": "registry",
    "open_source": "data.sources.opening",
    "register_augmentation": "data.input.augment",
    "register_hook": "runtime.hooks",
    "register_loss": "losses",
    "register_network": "models",
    "register_protocol": "evaluate.protocols",
    "register_source": "data.sources.opening",
    "train_and_evaluate": "train.loop",
}


def __getattr__(name: str) -> Any:
    """Return a public name, from the module that it lives in."""
    if name in ("losses", "models"):
        return import_module(f"{__name__}.{name}")
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

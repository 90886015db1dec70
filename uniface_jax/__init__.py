"""UniFace (Unified Cross-Entropy loss for face recognition, ICCV 2023) in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniface_jax.inference.embedder import Embedder

__version__ = "0.2.0"
__all__ = ["Embedder", "__version__"]


def __getattr__(name: str) -> Any:
    """Embedder on first use, so that importing the package stays quick."""
    if name == "Embedder":
        from uniface_jax.inference.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

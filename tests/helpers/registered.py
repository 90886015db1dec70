"""Registers parts for the length of a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from uniface_jax import losses, models
from uniface_jax.data.input.augment import AUGMENTATIONS
from uniface_jax.data.sources.opening import SOURCES
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.runtime.hooks import HOOKS

REGISTRIES = (losses.LOSSES, models.REGISTRY, AUGMENTATIONS, SOURCES, PROTOCOLS, HOOKS)


@contextmanager
def forgotten() -> Iterator[None]:
    """Forgets at the end of the block what was registered in it."""
    before = [dict(registry._entries) for registry in REGISTRIES]
    try:
        yield
    finally:
        for registry, entries in zip(REGISTRIES, before, strict=True):
            registry._entries.clear()
            registry._entries.update(entries)

"""Configuration: every key with its default, what is allowed, and what it stands for.

keys: all keys with their defaults. ranges: what each may be, and the checks before any work.
parts: the loss and the network that a config names. stored: a config as JSON, and the workdir that
belongs to it. facts: what a recipe says of itself.
"""

from uniface_jax.config.keys import base, completed, flatten
from uniface_jax.config.parts import (
    create_loss,
    create_network,
    create_sample_loss,
    products_in_8_bits,
    with_kernels,
)
from uniface_jax.config.ranges import allowed, check, check_batch, check_values
from uniface_jax.config.stored import as_begun, claim_workdir, from_json, of_run, to_json

__all__ = [
    "allowed",
    "as_begun",
    "base",
    "check",
    "check_batch",
    "check_values",
    "claim_workdir",
    "completed",
    "create_loss",
    "create_network",
    "create_sample_loss",
    "flatten",
    "from_json",
    "of_run",
    "products_in_8_bits",
    "to_json",
    "with_kernels",
]

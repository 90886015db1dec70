"""Registers the network one_block, for runs in processes of their own: demo_run.ONE_BLOCK.

Of the release's family, with every kind of its layers, dropout among them. What such runs test
(processes, signals, disks) does not depend on the depth, and each process traces its own step.
"""

import jax
from jax._src import cache_key
from jax.typing import DTypeLike

from uniface_jax import register_network
from uniface_jax.models.iresnet import IResNet

# One of several processes compiles for all, as JAX can for accelerators. For CPUs, whose key holds
# what a process has of the devices, each would compile anew, and the first alone would keep it.
jax.config.update("jax_share_binary_between_hosts", True)
cache_key._hash_accelerator_config = cache_key._hash_devices


@register_network("one_block")
def one_block(embedding_size: int, dtype: DTypeLike) -> IResNet:
    """Return a network with one block of four channels."""
    return IResNet(
        (1,), width=4, stem_stride=2, dropout=0.2, embedding_size=embedding_size, dtype=dtype
    )

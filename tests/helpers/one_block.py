"""Registers the network one_block, for runs in processes of their own: demo_run.ONE_BLOCK.

Of the release's family, with every kind of its layers, dropout among them. What such runs test
(processes, signals, disks) does not depend on the depth, and each process makes its own step.
"""

from jax.typing import DTypeLike

from uniface_jax import register_network
from uniface_jax.models.iresnet import IResNet


@register_network("one_block")
def one_block(embedding_size: int, dtype: DTypeLike) -> IResNet:
    """Return a network with one block of four channels."""
    return IResNet(
        (1,), width=4, stem_stride=2, dropout=0.2, embedding_size=embedding_size, dtype=dtype
    )

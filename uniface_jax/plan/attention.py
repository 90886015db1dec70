"""Counts what a ViT's attention computes and holds in a training step, on one device."""

from typing import NamedTuple

from uniface_jax.models import IMAGE_SIZE, Network, ViT

LOGIT_BYTES = 4  # float32, whatever the network computes in


class AttentionWork(NamedTuple):
    """Work of all blocks' q k' and weights v, and the bytes of one block's logits.

    flops: of the forward and backward passes over all images of a step, a part of the step's.
    block: of logits [B, heads, N, N] of one micro-batch, 0 where a fused kernel holds none. kept:
    of all blocks, until the backward pass.
    """

    flops: float
    block: int
    kept: int


def attention_work(network: Network, images: int, micro_batches: int) -> AttentionWork | None:
    """Return the work of `images` in each of `micro_batches`; None for a network that has none."""
    if not isinstance(network, ViT):
        return None
    tokens = network.kept((IMAGE_SIZE // network.patch) ** 2)
    products = 2 * 2 * tokens**2 * network.dim * network.depth  # q k' and weights v, of an image
    passes = 4 if network.remat else 3  # forward once or twice, backward twice as much
    fused = network.attention != "einsum"
    block = 0 if fused else LOGIT_BYTES * network.heads * tokens**2 * images
    kept = block if network.remat else network.depth * block
    return AttentionWork(float(passes * products * images * micro_batches), block, kept)


def describe(work: AttentionWork, flops: float) -> str:
    """Return the work as a line of the plan, beside the `flops` of the whole step."""
    share = f"attention: {work.flops / 1e12:.4g} of {flops / 1e12:.4g} TFLOP a step"
    if not work.block:
        return f"{share}; its kernel holds no logits [images, heads, tokens, tokens]"
    return (
        f"{share}; logits [images, heads, tokens, tokens] of {work.block / 1e9:.3f} GB a block, "
        f"{work.kept / 1e9:.3f} GB kept for the backward pass (in the memory above)"
    )

"""Weights of the golden backbone, drawn by PyTorch parameter name as the golden README says.

Shared by the tests that need them; `torch_state` is the PyTorch state dict as numpy arrays, and
`to_variables` turns it into this project's variables.
"""

import functools
import zlib

import numpy as np

from uniface_jax import models
from uniface_jax.weights.names import layout
from uniface_jax.weights.recognise import from_state

STAGES = (1, 2, 1, 1)
WIDTHS = (64, 128, 256, 512)
CLASSES = 29


def draw(seed: int, tag: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(tag.encode())])


def torch_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for field in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{field}"] = (channels,)

    shapes["conv1.weight"] = (64, 3, 3, 3)
    norm("bn1", 64)
    shapes["prelu.weight"] = (64,)
    before = 64
    for stage, (blocks, width) in enumerate(zip(STAGES, WIDTHS, strict=True), 1):
        for k in range(blocks):
            name = f"layer{stage}.{k}"
            inputs, kernel = (before, 2) if k == 0 else (width, 3)
            if k == 0:
                shapes[f"{name}.downsample.0.weight"] = (width, inputs, 2, 2)
                norm(f"{name}.downsample.1", width)
            norm(f"{name}.bn0", inputs)
            shapes[f"{name}.conv1.weight"] = (width, inputs, 3, 3)
            norm(f"{name}.bn1", width)
            shapes[f"{name}.prelu.weight"] = (width,)
            shapes[f"{name}.conv2.weight"] = (width, width, kernel, kernel)
            norm(f"{name}.bn2", width)
        before = width
    norm("bn4", 512)
    shapes["fc5.weight"] = (512, 512, 7, 7)
    norm("bn5", 512)
    shapes["loss.weight"] = (CLASSES, 512)
    shapes["loss.bias"] = (1,)
    return shapes


def torch_state(seed: int) -> dict[str, np.ndarray]:
    state = {}
    for name, shape in torch_shapes().items():
        rng = draw(seed, "w:" + name)
        if name == "loss.bias":
            # The release makes it a float32 tensor, which the golden run then widened.
            value = np.full(shape, np.log(10 * CLASSES), np.float32).astype(np.float64)
        elif name == "loss.weight":
            value = rng.standard_normal(shape)
        elif name == "bn5.weight":
            value = np.ones(shape)
        elif len(shape) == 4:
            value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = rng.uniform(0.6, 1.6, shape)
        elif name.endswith("running_mean"):
            value = rng.normal(0, 0.1, shape)
        elif "prelu" in name:
            value = rng.uniform(0.005, 0.5, shape)
        elif name.endswith("weight"):
            value = rng.uniform(0.7, 1.3, shape) * (0.35 if ".bn2." in name else 1)
        else:
            value = rng.normal(0, 0.1, shape)
        state[name] = value
    return state


def flax_path(name: str) -> tuple[str, ...]:
    """PyTorch's parameter name -> module and leaf of the Flax variables."""
    return _layout()[name].path


def to_variables(state: dict[str, np.ndarray]):
    """(params, batch_stats) of the state dict without its head."""
    imported = from_state(state, "golden weights")
    return imported.params, imported.batch_stats


@functools.cache
def _layout():
    return layout(models.create("lresnet50", stage_sizes=STAGES))

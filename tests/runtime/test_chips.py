"""Devices as JAX tells of them, and the types of 8 bits that they multiply."""

from types import SimpleNamespace

import jax
import pytest

from uniface_jax.plan.targets import CARDS, parse
from uniface_jax.runtime.chips import Chip, chip_of, multiplies


@pytest.mark.parametrize(
    ("platform", "kind", "capability", "chip"),
    [
        ("gpu", "NVIDIA H100 80GB HBM3", "9.0", Chip("gpu", (9, 0))),
        ("gpu", "NVIDIA L4", "8.9", Chip("gpu", (8, 9))),
        ("gpu", "AMD Instinct MI300X", "gfx942", None),
        ("tpu", "TPU v5 lite", None, Chip("tpu", (5, 0))),
        ("tpu", "TPU7x", None, Chip("tpu", (7, 0))),
        ("tpu", "another", None, None),
    ],
)
def test_devices_tell_what_they_are(platform, kind, capability, chip):
    told = {} if capability is None else {"compute_capability": capability}
    assert chip_of(SimpleNamespace(platform=platform, device_kind=kind, **told)) == chip


def test_a_cpu_multiplies_neither():
    chip = chip_of(jax.devices("cpu")[0])
    assert not any(multiplies(chip, dtype) for dtype in ("int8", "float8_e4m3fn"))


@pytest.mark.parametrize(("kind", "float8"), [("a100", False), ("h100", True), ("v5e", False)])
def test_targets_multiply_int8_and_some_float8(kind, float8):
    chip = parse(f"{kind}:4x4" if kind == "v5e" else kind, 8).chip
    assert chip.generation == CARDS[kind].generation
    assert multiplies(chip, "int8")
    assert multiplies(chip, "float8_e4m3fn") == float8

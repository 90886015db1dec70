"""Devices that are not there, and what is said where their compilers are missing."""

import pytest

from tests.helpers.accelerators import TPU
from uniface_jax.errors import UserError
from uniface_jax.plan import targets, topology


@pytest.mark.skipif(TPU, reason="XLA's compiler for TPUs is installed")
def test_a_missing_compiler_is_named_with_the_way_to_it():
    with pytest.raises(UserError, match=r"--target=v5e:2x4: .*pip install 'uniface_jax.tpu.'"):
        topology.devices_of(targets.parse("v5e:2x4", 1))


def test_a_gpu_is_described_for_the_compiler():
    text = topology._description("h100")
    assert "shared_memory_per_block_optin: 232448 " in text
    assert "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert text.count("{") == text.count("}")

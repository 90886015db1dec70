"""Devices that are not there, and what is said where their compilers are missing."""

import subprocess
import sys

import pytest

from tests.helpers.accelerators import TPU, for_gpu, for_tpu
from tests.helpers.paths import ROOT
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


@pytest.mark.parametrize(
    ("name", "chips"), [("v4:2x2x1", 4), ("v5e:1x1", 1), ("v5e:4x4", 16), ("v5p:2x2x4", 16),
                        ("v6e:4x4", 16)],
)  # fmt: skip
@for_tpu
def test_a_tpus_devices_are_its_chips(name, chips):
    target = targets.parse(name, 1)
    assert len(topology.devices_of(target)) == target.devices == chips


@for_tpu
def test_several_processes_ask_the_compiler_for_tpus_at_once():
    """Hold one process in the midst of it while another asks, as two plans may."""
    program = (
        "from uniface_jax.plan import targets, topology;"
        "print(len(topology.devices_of(targets.parse('v5e:2x4', 1))), flush=True);"
    )
    command = [sys.executable, "-c", program + "input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == "8\n"
        second = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )
        first.stdin.write("\n")
    assert second.stdout == "8\n", second.stderr


@for_gpu
@pytest.mark.parametrize("name", ["a100", "h100", "h200", "b200"])
def test_gpus_are_as_many_as_are_asked_for(name):
    assert len(topology.devices_of(targets.parse(name, 64))) == 64


def test_a_compiler_that_knows_no_such_devices_is_not_to_be_installed(monkeypatch):
    def no(*arguments, **more):
        raise ValueError("no such topology")

    monkeypatch.setattr(topology.topologies, "get_topology_desc", no)
    monkeypatch.setattr(topology, "installed", lambda extra: extra == "tpu")
    with pytest.raises(UserError, match=r"\(no such topology\); it is installed"):
        topology.devices_of(targets.parse("v5e:2x4", 1))
    with pytest.raises(UserError, match=r"\(no such topology\); pip install 'uniface_jax.cuda.'"):
        topology.devices_of(targets.parse("h100", 1))

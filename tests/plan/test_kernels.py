"""Counting a program's kernels and their bytes, against texts that were counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax.plan import kernels
from uniface_jax.plan.kernels import Array, Total

PROGRAM = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%fused_add (p.0: bf16[8,4], p.1: bf16[4]) -> bf16[8,4] {
  %p.0 = bf16[8,4]{1,0} parameter(0)
  %p.1 = bf16[4]{0} parameter(1)
  %broadcast = bf16[8,4]{1,0} broadcast(%p.1), dimensions={1}
  ROOT %add.2 = bf16[8,4]{1,0} add(%p.0, %broadcast)
}

%fused_reduce (p.2: bf16[8,4]) -> (f32[4], f32[4]) {
  %p.2 = bf16[8,4]{1,0} parameter(0)
  %convert = f32[8,4]{1,0} convert(%p.2)
  %zero = f32[] constant(0)
  %reduce = f32[4]{0} reduce(%convert, %zero), dimensions={0}, to_apply=%sum
  ROOT %both = (f32[4]{0}, f32[4]{0}) tuple(%reduce, %reduce)
}

%fused_slice (p.3: f32[100,4], p.4: s32[]) -> f32[2,4] {
  %p.3 = f32[100,4]{1,0} parameter(0)
  %p.4 = s32[] parameter(1)
  %nought = s32[] constant(0)
  %rows = f32[2,4]{1,0} dynamic-slice(%p.3, %p.4, %nought), dynamic_slice_sizes={2,4}
  ROOT %negate = f32[2,4]{1,0} negate(%rows)
}

%fused_update (p.5: f32[100,4], p.6: f32[2,4], p.7: s32[]) -> f32[100,4] {
  %p.5 = f32[100,4]{1,0} parameter(0)
  %p.6 = f32[2,4]{1,0} parameter(1)
  %p.7 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %updated = f32[100,4]{1,0} dynamic-update-slice(%p.5, %p.6, %p.7, %none)
}

%fused_transpose (p.8: f32[8,4]) -> f32[4,8] {
  %p.8 = f32[8,4]{1,0} parameter(0)
  ROOT %transpose = f32[4,8]{1,0} transpose(%p.8), dimensions={1,0}
}

%body (state: (s32[], f32[100,4])) -> (s32[], f32[100,4]) {
  %state = (s32[], f32[100,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %table = f32[100,4]{1,0} get-tuple-element(%state), index=1
  %taken = f32[2,4]{1,0} fusion(%table, %i), kind=kLoop, calls=%fused_slice
  %put = f32[100,4]{1,0} fusion(%table, %taken, %i), kind=kLoop, calls=%fused_update
  ROOT %next = (s32[], f32[100,4]{1,0}) tuple(%i, %put)
}

%condition (state.1: (s32[], f32[100,4])) -> pred[] {
  %state.1 = (s32[], f32[100,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %last = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %last), direction=LT
}

ENTRY %main (x: bf16[8,4], y: bf16[4], state.2: (s32[], f32[100,4]), z: f32[8,4]) -> f32[] {
  %x = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %y = bf16[4]{0} parameter(1)
  %state.2 = (s32[], f32[100,4]{1,0}) parameter(2)
  %z = f32[8,4]{1,0} parameter(3)
  %added = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} fusion(%x, %y), kind=kLoop, calls=%fused_add
  %sums = (f32[4]{0}, f32[4]{0}) fusion(%added), kind=kInput, calls=%fused_reduce
  %sum.1 = f32[4]{0} get-tuple-element(%sums), index=0
  %whole = f32[4]{0} all-reduce(%sum.1), replica_groups={{0,1}}, to_apply=%sum
  %gathering = (f32[4]{0}, f32[8]{0}) all-gather-start(%whole), dimensions={0}
  %gathered = f32[8]{0} all-gather-done(%gathering)
  %turned = f32[4,8]{1,0} fusion(%z), kind=kInput, calls=%fused_transpose
  %called = (f32[4,4]{1,0}, s8[33554432]{0}) custom-call(%turned, %z), custom_call_target="__cublas$lt$matmul", backend_config={"x":"(%z)"}
  %conv = (bf16[8,4]{1,0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convBackwardInput"
  ROOT %loop = (s32[], f32[100,4]{1,0}) while(%state.2), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"},"init":{}}
}
"""  # noqa: E501


def test_a_program_counted_by_hand():
    x, y, sums, turned, product = 8 * 4 * 2, 4 * 2, 2 * 4 * 4, 8 * 4 * 4, 4 * 4 * 4
    rows, place = 2 * 4 * 4, 4
    assert kernels.by_kind(kernels.kernels(PROGRAM)) == {
        "element-wise": Total(
            1 + 2 * 5, (x + y + x) + 5 * (rows + place + rows) + 5 * (rows + place + rows)
        ),
        "product": Total(1, turned + turned + product),
        "transpose or copy": Total(1, turned + turned),
        "convolution, input gradient": Total(1, x + x),
        "reduction": Total(1, x + sums),
        "collective": Total(2, (16 + 16) + (16 + 32)),
    }


def test_results_are_told_without_a_librarys_workspace():
    (product,) = [k for k in kernels.kernels(PROGRAM) if k.name == "called"]
    assert product.results == (Array("f32", (4, 4)),)


@pytest.mark.parametrize(
    ("dtype", "size"), [("pred", 3), ("bf16", 6), ("f8e4m3fn", 3), ("u4", 2), ("c64", 24)]
)
def test_bytes_of_types(dtype, size):
    assert Array(dtype, (3,)).bytes == size


@pytest.mark.parametrize(
    "text", ["", "HloModule x\n", "ENTRY %m (x: f32[]) -> f32[] {\n  %y = (f32[] tuple(\n}\n"]
)
def test_another_text_is_refused(text):
    with pytest.raises(ValueError, match=r"not the text of a compiled program|cut short"):
        kernels.kernels(text)


def test_a_compiled_program():
    """Count a loop of products on this machine: XLA's own text, whatever its version."""

    def step(a, b):
        return jax.lax.fori_loop(0, 7, lambda i, x: jnp.tanh(x @ b), a)

    a, b = np.ones((64, 32), np.float32), np.ones((32, 32), np.float32)
    found = kernels.kernels(jax.jit(step).lower(a, b).compile().as_text())
    products = [kernel for kernel in found if kernel.times == 7 and kernel.read >= 64 * 32 * 4]
    assert products
    assert sum(kernel.bytes for kernel in products) >= 7 * 4 * (2 * 64 * 32 + 32 * 32)


BESIDE = """HloModule jit_step, is_scheduled=true

%fused_add (p.0: f32[8,4]) -> f32[8,4] {
  %p.0 = f32[8,4]{1,0} parameter(0)
  ROOT %add.2 = f32[8,4]{1,0} add(%p.0, %p.0)
}

%fused_start (p.1: f32[4]) -> (f32[4], f32[8], u32[]) {
  %p.1 = f32[4]{0} parameter(0)
  %all-gather.1 = f32[8]{0} all-gather(%p.1), frontend_attributes={chain_id="0"}
  ROOT %custom-call.1 = (f32[4]{0}, f32[8]{0}, u32[]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (p.2: f32[8,4], p.3: f32[4,2], p.4: f32[4]) -> f32[8,2] {
  %p.2 = f32[8,4]{1,0} parameter(0)
  %p.3 = f32[4,2]{1,0} parameter(1)
  %p.4 = f32[4]{0} parameter(2)
  %all-gather.2 = f32[8]{0} all-gather(%p.4), frontend_attributes={chain_id="0"}
  ROOT %convolution.1 = f32[8,2]{1,0} convolution(%p.2, %p.3), dim_labels=bf_io->bf
}

%fused_end (p.5: f32[8]) -> f32[8] {
  %p.5 = f32[8]{0} parameter(0)
  %all-gather.3 = f32[8]{0} all-gather(%p.5), frontend_attributes={chain_id="0"}
  ROOT %custom-call.2 = f32[8]{0} custom-call(%p.5, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (x: f32[8,4], y: f32[4], w: f32[4,2]) -> f32[8] {
  %x = f32[8,4]{1,0} parameter(0)
  %y = f32[4]{0} parameter(1)
  %w = f32[4,2]{1,0} parameter(2)
  %summing = f32[4]{0} all-reduce-start(%y), to_apply=%sum
  %added = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%fused_add
  %gathering = (f32[4]{0}, f32[8]{0}, u32[]) fusion(%y), kind=kCustom, calls=%fused_start
  %summed = f32[4]{0} all-reduce-done(%summing)
  %product = f32[8,2]{1,0} fusion(%added, %w, %y), kind=kOutput, calls=%async_collective_fusion.2
  %gathered = f32[8]{0} fusion(%gathering), kind=kCustom, calls=%fused_end
  ROOT %waited = f32[8]{0} all-reduce(%gathered), to_apply=%sum
}
"""  # noqa: E501


def test_what_runs_beside_a_collective():
    """Read it by start and done, as GPUs' compiler writes it, and by TPUs' fusions of a chain."""
    found = kernels.kernels(BESIDE)
    added, product = 2 * 8 * 4 * 4, (8 * 4 + 4 * 2 + 4 + 8 * 2) * 4
    assert [(k.name, k.beside) for k in found if k.kind == kernels.COLLECTIVE] == [
        ("summing", Total(1, added)),
        ("gathering", Total(1, product, 2 * 8 * 4 * 2)),
        ("waited", Total(0, 0)),
    ]
    assert kernels.by_kind(found)["convolution"] == Total(1, product, 2 * 8 * 4 * 2)
    assert [(k.read, k.written) for k in found if k.name == "summing"] == [(16, 16)]

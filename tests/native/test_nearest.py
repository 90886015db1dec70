"""Codes of bounded error: the kernel against its twin, and the bounds against float64."""

import ctypes
import subprocess

import numpy as np
import pytest

from tests.helpers.nearest_problems import as_pairs, codes_of, unit
from tests.helpers.paths import ROOT
from uniface_jax.native import build, nearest


@pytest.mark.parametrize("width", [1, 3, 64, 130])
def test_cosines_lie_within_the_bounds(width):
    rows, asked = unit((500, width)), unit((40, width), seed=1)
    codes, scales, errors = nearest.coded(rows)
    queries = nearest.Queries.of(asked)
    about = (codes * scales[:, None].astype(float)) @ (
        queries.codes[:, :width] * queries.scales[:, None].astype(float)
    ).T
    bounds = errors[:, None] * queries.by_error + queries.beyond
    assert (np.abs(about - rows @ asked.T) <= bounds).all()


@pytest.mark.parametrize(("count", "width", "queries", "k"), [(1, 5, 1, 1), (700, 130, 13, 4)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_finds_what_its_twin_finds(
    kernels, monkeypatch, count, width, queries, k, threads
):
    codes, asked = codes_of(unit((count, width))), nearest.Queries.of(unit((queries, width), 1))
    found = nearest.candidates(codes, asked, k, threads)
    monkeypatch.setattr(build, "library", lambda: None)
    expected = nearest.candidates(codes, asked, k)
    assert as_pairs(found) == as_pairs(expected)
    np.testing.assert_allclose(found.best, expected.best, atol=1e-6)


def test_little_room_for_what_is_found_loses_nothing(kernels, monkeypatch):
    codes, asked = codes_of(unit((2000, 16))), nearest.Queries.of(unit((6, 16), 1))
    expected = as_pairs(nearest.candidates(codes, asked, 40))
    monkeypatch.setattr(nearest, "_FOUND", 1)
    assert as_pairs(nearest.candidates(codes, asked, 40)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["-DUNIFACE_PORTABLE"], ["-mavx2", "-mno-avx512f"], ["-march=x86-64"]]
)
def test_every_way_through_the_kernel_finds_the_same(kernels, options, monkeypatch, tmp_path):
    codes, asked = codes_of(unit((3000, 130))), nearest.Queries.of(unit((13, 130), 1))
    expected = as_pairs(nearest.candidates(codes, asked, 5))
    file = ROOT / "uniface_jax" / "native" / "nearest.cc"
    made = tmp_path / "nearest.so"
    command = ["c++", "-std=c++17", "-O3", *options, "-fPIC", "-shared", file, "-o", made]
    subprocess.run(command, check=True)
    monkeypatch.setattr(build, "library", lambda: ctypes.CDLL(str(made)))
    assert as_pairs(nearest.candidates(codes, asked, 5)) == expected

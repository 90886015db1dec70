"""Time and size of two ONNX files, side by side: runs take turns, so that both see one machine."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from uniface_jax.inference.model import Model

BATCHES = (1, 32)
MIN_ROUNDS, MAX_ROUNDS = 5, 200
SECONDS = 3.0  # of rounds, for each batch size
_CPU_FILE = Path("/proc/cpuinfo")
_VNNI = ("avx512_vnni", "avx_vnni")  # integer dot products of x86, by the kernel's names


def side_by_side(models: Mapping[str, tuple[Path, Model]]) -> dict[str, Any]:
    """Return milliseconds of a run of each model, by its name, and how much faster the later are.

    models: files and what was loaded of them. The numbers are medians; where one takes a fixed
    batch, all are measured at that.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    sessions = {
        name: (
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]),
            model.feeds,
        )
        for name, (path, model) in models.items()
    }
    fixed = {feeds.batch for _, feeds in sessions.values() if feeds and feeds.batch}
    found = {}
    for batch in sorted(fixed or BATCHES):
        images = np.random.default_rng(0).integers(0, 256, (batch, 112, 112, 3), np.uint8)
        runs = {}
        for name, (session, feeds) in sessions.items():
            assert feeds is not None
            (feed,) = feeds(images)
            runs[name] = (session, feed)
        medians = _medians(runs)
        first = next(iter(medians))
        ratios = {name: medians[first] / medians[name] for name in list(medians)[1:]}
        found[str(batch)] = {"milliseconds": medians, "times_as_fast": ratios}
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "by_batch": found}


def _medians(runs: Mapping[str, tuple[Any, dict[str, np.ndarray]]]) -> dict[str, float]:
    """Return the median milliseconds of each session's run, all taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for session, feed in runs.values():
        session.run(None, feed)  # memory is taken, weights are laid out
    begun = time.perf_counter()
    for count in range(MAX_ROUNDS):
        if count >= MIN_ROUNDS and time.perf_counter() - begun > SECONDS:
            break
        for name, (session, feed) in runs.items():
            start = time.perf_counter()
            session.run(None, feed)
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(of) * 1e3) for name, of in times.items()}


def _cpu() -> dict[str, Any]:
    """Return the processor's name, and its instructions for int8 products; None where unknown."""
    try:
        lines = _CPU_FILE.read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {"name": None, "vnni": None}
    known = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = known.get("flags")
    vnni = None if flags is None else [name for name in _VNNI if name in flags.split()]
    return {"name": known.get("model name"), "vnni": vnni}

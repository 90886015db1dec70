"""The queue: its bound, what nobody waits for any more, and what a fault of the network does."""

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.onnx_graphs import expected_features
from tests.helpers.serving import face
from uniface_jax.data.formats.images import decode, encode_png
from uniface_jax.serve.batches import Batcher
from uniface_jax.serve.photographs import FaceReader
from uniface_jax.serve.problems import Problem

READER = FaceReader(align=False, detector=None, score=0.6, pixels=1 << 20, faces=1)


def run(model, scenario, *, limit=8, batch=4, compiled=False):
    """Return what the coroutine function `scenario` of a queue returns."""
    batcher = Batcher(READER, model, batch=batch, limit=limit, compiled=compiled)
    try:
        return asyncio.run(scenario(batcher))
    finally:
        batcher.close()


def photographs(count, first=0):
    return [(f"{seed}", face(seed)) for seed in range(first, first + count)]


def held(model, release, seen=None):
    """Return the model with a network that waits for `release`, and notes its batches in `seen`."""

    def embed(images):
        if seen is not None:
            seen.append(len(images))
        assert release.wait(20)
        return model.embed(images)

    return replace(model, embed=embed)


def test_a_full_queue_refuses_and_says_when_again(model):
    release = threading.Event()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(photographs(6), several=False, seconds=20))
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as refused:
            await batcher.results(photographs(3), several=False, seconds=20)
        second = asyncio.create_task(batcher.results(photographs(2, 6), several=False, seconds=20))
        release.set()
        found = [*await first, *await second]
        return refused.value, found, batcher.waiting

    problem, found, waiting = run(held(model, release), scenario)
    assert (problem.status, problem.reason, waiting) == (503, "full", 0)
    assert 1 <= problem.retry <= 30
    assert problem.response().headers["retry-after"] == str(problem.retry)
    expected = expected_features(np.stack([decode(face(seed), "") for seed in range(8)]))
    rows = [result[0].feature for result in found]
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_a_slow_queue_says_a_later_time(model):
    release = threading.Event()
    release.set()
    slow = held(model, release)

    def embed(images):
        time.sleep(0.5)
        return slow.embed(images)

    async def scenario(batcher):
        for seed in range(6):
            await batcher.results(photographs(1, seed), several=False, seconds=20)
        task = asyncio.create_task(batcher.results(photographs(40), several=False, seconds=20))
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as refused:
            await batcher.results(photographs(1), several=False, seconds=20)
        await task
        return refused.value.retry

    assert 2 <= run(replace(model, embed=embed), scenario, limit=40, batch=40) <= 20


def test_what_nobody_waits_for_is_not_computed(model):
    release, seen = threading.Event(), []

    async def scenario(batcher):
        first = asyncio.create_task(batcher.results(photographs(1), several=False, seconds=20))
        while not seen:
            await asyncio.sleep(0.01)
        with pytest.raises(Problem) as late:
            await batcher.results(photographs(5, 1), several=False, seconds=0.05)
        release.set()
        await first
        last = await batcher.results(photographs(1, 9), several=False, seconds=20)
        return late.value.reason, len(last), batcher.waiting

    assert run(held(model, release, seen), scenario) == ("timeout", 1, 0)
    assert seen == [1, 1]


def test_a_fault_of_the_network_is_an_answer(model, caplog):
    def broken(images):
        raise RuntimeError("secret")

    async def scenario(batcher):
        return await batcher.results(photographs(2), several=False, seconds=20)

    for problem in run(replace(model, embed=broken), scenario):
        assert (problem.status, problem.detail) == (500, "the network failed")


def test_a_feature_without_a_direction_is_the_photographs_problem(model):
    black = encode_png(np.zeros((112, 112, 3), np.uint8))

    def zero_for_black(images):
        return model.embed(images) * images.any(axis=(1, 2, 3))[:, None]

    async def scenario(batcher):
        sent = [("black", black), ("face", face(0))]
        return await batcher.results(sent, several=False, seconds=20)

    bad, good = run(replace(model, embed=zero_for_black), scenario)
    assert (bad.status, bad.reason) == (422, "no_feature")
    assert len(good) == 1


def test_a_compiled_network_sees_few_sizes(model):
    seen = []

    def embed(images):
        seen.append(len(images))
        return model.embed(images)

    async def scenario(batcher):
        batcher.warm_up()
        assert seen == [1, 4, 8]
        return await batcher.results(photographs(3), several=False, seconds=20)

    found = run(replace(model, embed=embed), scenario, batch=8, compiled=True)
    assert all(len(result) == 1 for result in found)
    assert set(seen) == {1, 4, 8}

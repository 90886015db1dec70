"""Bounded queue from photographs to features: threads read faces, one thread runs the network."""

import asyncio
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from absl import logging

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.errors import UserError
from uniface_jax.inference.extract import check_features
from uniface_jax.inference.model import Model
from uniface_jax.serve.limits import MAX_RETRY_SECONDS, RETRY_SECONDS
from uniface_jax.serve.photographs import FaceReader, ReadFace
from uniface_jax.serve.problems import Problem, full, late

# Faces of a batch for a compiled network, which compiles once for each: the next one is filled up.
_COMPILED_SIZES = (1, 4, 16, 64, 256)
_NEWEST_WEIGHT = 0.05  # of a photograph in the mean time between two


class EmbeddedFace(NamedTuple):
    """A face of a photograph, and its feature, float32 [D], not normalized."""

    face: ReadFace
    feature: np.ndarray


Result = Sequence[EmbeddedFace] | Problem  # of one photograph


@dataclass
class _Job:
    encoded: bytes
    name: str
    several: bool
    result: "Future[Result]" = field(default_factory=Future)
    faces: Sequence[ReadFace] = ()

    def settle(self, result: Result) -> None:
        with suppress(InvalidStateError):  # nobody waits any more
            self.result.set_result(result)


class Batcher:
    """Queue of `limit` photographs at most, whose faces are embedded in batches of `batch`.

    One thread for each core reads and aligns, one runs the network. What nobody waits for any more
    is not computed.

    Args:
        reader: from bytes to faces.
        model: settled.
        batch: faces the network takes at a time.
        limit: photographs that wait or are worked on.
        compiled: batches are filled up to few sizes, for which a network has compiled.
        seen: is told the faces of each batch.
    """

    def __init__(
        self,
        reader: FaceReader,
        model: Model,
        *,
        batch: int,
        limit: int,
        compiled: bool,
        seen: Callable[[int], None] = lambda faces: None,
    ) -> None:
        self._reader, self._model, self._seen = reader, model, seen
        self._batch, self._limit, self._compiled = batch, limit, compiled
        self._ready: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock, self._waiting = threading.Lock(), 0
        self._seconds_each, self._last = 0.0, time.monotonic()
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "photographs")
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many photographs wait or are worked on."""
        return self._waiting

    def warm_up(self) -> None:
        """Embed gray images in each size of batch, so that nobody waits for a compiler."""
        sizes = [size for size in _COMPILED_SIZES if size < self._batch] if self._compiled else []
        gray = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 127, np.uint8)
        face = ReadFace(gray, from_pixels(TEMPLATE), None, None)
        for size in (*sizes, self._batch):
            self._features([face] * size)

    def close(self) -> None:
        """End the threads, after what they work on."""
        self._pool.shutdown(cancel_futures=True)
        self._ready.put(None)
        self._thread.join()

    async def results(
        self, photographs: Sequence[tuple[str, bytes]], *, several: bool, seconds: float
    ) -> list[Result]:
        """Return the faces, or the problem, of each photograph, a name and its bytes.

        several: all faces of a photograph, and not the most prominent one alone. Raises Problem
        where the queue is full, or `seconds` have passed.
        """
        self._enter(len(photographs))
        jobs = [_Job(encoded, name, several) for name, encoded in photographs]
        for job in jobs:
            self._pool.submit(self._read, job)
        waited = [asyncio.wrap_future(job.result) for job in jobs]
        try:
            async with asyncio.timeout(seconds):
                return list(await asyncio.gather(*waited))
        except TimeoutError as e:
            raise late(round(seconds, 1)) from e
        finally:
            for job in jobs:
                if job.result.cancel():
                    job.encoded = b""  # it may be long until a thread comes to it

    def _enter(self, count: int) -> None:
        with self._lock:
            if self._waiting + count > self._limit:
                raise full(
                    f"{self._waiting} photographs wait already; at most {self._limit} may",
                    self._seconds_to_wait(),
                )
            if not self._waiting:
                self._last = time.monotonic()
            self._waiting += count

    def _seconds_to_wait(self) -> int:
        """Return in how many seconds, about, those that wait now are answered."""
        seconds = math.ceil(self._waiting * self._seconds_each)
        return min(max(seconds, RETRY_SECONDS), MAX_RETRY_SECONDS)

    def _leave(self, job: _Job, result: Result) -> None:
        with self._lock:
            self._waiting -= 1
            now = time.monotonic()
            self._seconds_each += _NEWEST_WEIGHT * (now - self._last - self._seconds_each)
            self._last = now
        job.settle(result)

    def _read(self, job: _Job) -> None:
        """Read the faces of one photograph, and hand them on."""
        encoded, job.encoded = job.encoded, b""
        try:
            if job.result.cancelled():
                raise Problem(503, "timeout", "given up")
            job.faces = self._reader(encoded, job.name, several=job.several)
        except Problem as e:
            self._leave(job, e)
        except Exception:
            logging.exception("%s: a photograph could not be read", job.name)
            self._leave(job, Problem(500, "internal", "the photograph could not be read"))
        else:
            self._ready.put(job)

    def _run(self) -> None:
        """Embed what is ready, a batch at a time, until there comes None."""
        while (job := self._ready.get()) is not None:
            jobs, count = [job], len(job.faces)
            with suppress(queue.Empty):
                while count < self._batch:
                    if (more := self._ready.get_nowait()) is None:
                        self._ready.put(None)
                        break
                    jobs.append(more)
                    count += len(more.faces)
            self._embed(jobs)

    def _embed(self, jobs: Sequence[_Job]) -> None:
        wanted = []
        for job in jobs:
            if job.result.cancelled():
                self._leave(job, ())
            else:
                wanted.append(job)
        jobs = wanted
        faces = [face for job in jobs for face in job.faces]
        try:
            parts = [
                self._features(faces[i : i + self._batch])
                for i in range(0, len(faces), self._batch)
            ]
        except Exception:
            logging.exception("the network failed")
            for job in jobs:
                self._leave(job, Problem(500, "internal", "the network failed"))
            return
        features = iter(row for part in parts for row in part)
        for job in jobs:
            found = [EmbeddedFace(face, next(features)) for face in job.faces]
            self._leave(job, _usable(found, job.name))

    def _features(self, faces: Sequence[ReadFace]) -> np.ndarray:
        """Return features float32 [N, D] of N faces, as many as a batch has or fewer."""
        size = len(faces)
        if self._compiled:
            size = next((n for n in _COMPILED_SIZES if size <= n < self._batch), self._batch)
        crops = np.zeros((size, *faces[0].crop.shape), np.uint8)
        landmarks = np.zeros((size, *faces[0].landmarks.shape), np.float32)
        for row, face in enumerate(faces):
            crops[row], landmarks[row] = face.crop, face.landmarks
        inputs = (crops, landmarks) if self._model.takes_landmarks else (crops,)
        self._seen(len(faces))
        return np.asarray(self._model.embed(*inputs), np.float32)[: len(faces)]


def _usable(faces: Sequence[EmbeddedFace], name: str) -> Result:
    """Return the faces; the problem of a photograph whose feature no cosine can be taken of."""
    for face in faces:
        try:
            check_features(face.feature[None], 0, lambda _: name)
        except UserError as e:
            return Problem(422, "no_feature", str(e))
    return faces

"""Answers of one model: features of photographs, comparisons, and searches of a gallery."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.gallery.manifest import MANIFEST
from uniface_jax.gallery.rows import Row
from uniface_jax.gallery.store import Gallery
from uniface_jax.gallery.thresholds import Limit, limit_at_far
from uniface_jax.inference.calibration import Calibration, Threshold
from uniface_jax.inference.model import Model
from uniface_jax.inference.similarity import similarity
from uniface_jax.serve.batches import Batcher, EmbeddedFace, Result
from uniface_jax.serve.counts import Counts
from uniface_jax.serve.limits import Limits
from uniface_jax.serve.photographs import FaceReader
from uniface_jax.serve.problems import Problem, late

Photograph = tuple[str, bytes]  # its name, and the encoded image


@dataclass(frozen=True)
class Decision:
    """Answer to two faces: their cosine, and whether it reaches the threshold; None without one."""

    cosine: float
    same: bool | None
    threshold: Threshold | None


@dataclass(frozen=True)
class Found:
    """Answer to a search: rows and cosines, the nearest first, the limit, and the gallery's size.

    limit: None where no threshold is known.
    """

    nearest: Sequence[tuple[Row, float]]
    limit: Limit | None
    faces: int


@dataclass(frozen=True)
class Knowledge:
    """Parts that a server may have beside its model.

    gallery: the folder. calibration, far, measured_on: thresholds, the rate that is taken where a
    request names none, and the set of the evaluation, where several have that rate.
    """

    gallery: Path | None = None
    calibration: Calibration | None = None
    far: float | None = None
    measured_on: str | None = None


class Service:
    """A model with its queue, and what it knows; used within `async with`, by one event loop.

    Raises:
        UserError: the gallery or the calibration cannot be used, or is of another model.
    """

    def __init__(
        self,
        model: Model,
        reader: FaceReader,
        knowledge: Knowledge,
        limits: Limits,
        *,
        compiled: bool,
    ) -> None:
        self.model, self.knowledge, self.limits = model, knowledge, limits
        self.reader, self.counts = reader, Counts()
        self._compiled = compiled
        self._batcher: Batcher | None = None
        self._searches = ThreadPoolExecutor(1, "search")
        self._opening = threading.Lock()
        self._gallery: Gallery | None = None
        self._state: tuple[int, int] | None = None
        if knowledge.calibration:
            knowledge.calibration.expect_model(model.hash, model.description)
            if knowledge.far is not None:
                knowledge.calibration.threshold(knowledge.far, knowledge.measured_on)
        elif knowledge.far is not None or knowledge.measured_on is not None:
            raise UserError("--far and --measured_on: only with --calibration")
        if knowledge.gallery:
            self.gallery()

    async def __aenter__(self) -> Self:
        self._batcher = Batcher(
            self.reader,
            self.model,
            batch=self.limits.batch,
            limit=self.limits.queue,
            compiled=self._compiled,
            seen=self.counts.batch,
        )
        self.counts.waiting.set_function(lambda: self.batcher.waiting)
        await asyncio.to_thread(self.batcher.warm_up)
        if self.knowledge.gallery is not None:  # whose kernels may have to be compiled
            width = self.gallery().manifest.width
            await asyncio.to_thread(self._search, np.ones(width, np.float32), 1, None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.batcher.close)
        self._searches.shutdown()

    @property
    def batcher(self) -> Batcher:
        """Return the queue, which is there within `async with`."""
        assert self._batcher is not None
        return self._batcher

    def gallery(self) -> Gallery:
        """Return the gallery in its newest state, opened again where it has changed.

        Raises Problem where this server has none, and UserError where it cannot be read.
        """
        self.expect_gallery()
        folder = self.knowledge.gallery
        assert folder is not None
        with self._opening:
            try:
                status = (folder / MANIFEST).stat()
            except OSError as e:
                raise UserError(f"{folder}: no gallery ({e.strerror})") from e
            state = status.st_mtime_ns, status.st_ino
            if self._gallery is None or state != self._state:
                gallery = Gallery(folder)
                self._expect_model(gallery)
                self._gallery, self._state = gallery, state
            return self._gallery

    def expect_gallery(self) -> None:
        """Raise Problem where this server has no gallery."""
        if self.knowledge.gallery is None:
            raise Problem(404, "no_gallery", "this server has no gallery (--gallery)")

    async def results(
        self, photographs: Sequence[Photograph], *, several: bool, seconds: float
    ) -> list[Result]:
        """Return the faces, or the problem, of each photograph; see Batcher.results."""
        results = await self.batcher.results(photographs, several=several, seconds=seconds)
        self.counts.results(results)
        return results

    async def faces(
        self, photographs: Sequence[Photograph], *, seconds: float
    ) -> list[EmbeddedFace]:
        """Return the most prominent face of each photograph; Problem for the first without one."""
        found = []
        for result in await self.results(photographs, several=False, seconds=seconds):
            if isinstance(result, Problem):
                raise result
            found.append(result[0])
        return found

    def decide(self, a: np.ndarray, b: np.ndarray, far: float | None) -> Decision:
        """Return the decision on two features [D] at a FAR; None takes the server's."""
        cosine = float(similarity(a, b))
        threshold = self.threshold(far)
        same = None if threshold is None else cosine >= threshold.cosine
        return Decision(cosine, same, threshold)

    def threshold(self, far: float | None) -> Threshold | None:
        """Return the threshold at a FAR, None takes the server's; None where there is none.

        Raises Problem for a FAR that was not measured.
        """
        calibration = self.knowledge.calibration
        if far is not None and calibration is None:
            raise Problem(422, "no_calibration", "far: this server has no --calibration")
        far = self.knowledge.far if far is None else far
        if far is None or calibration is None:
            return None
        try:
            return calibration.threshold(far, self.knowledge.measured_on)
        except UserError as e:
            raise Problem(422, "far", str(e).removeprefix(f"{calibration.file}: ")) from e

    async def search(
        self, feature: np.ndarray, k: int, far: float | None, *, seconds: float
    ) -> Found:
        """Find the k nearest faces of the gallery for a feature [D], and the limit at a FAR.

        Raises Problem for a FAR that was not measured, and where `seconds` have passed.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                return await loop.run_in_executor(self._searches, self._search, feature, k, far)
        except TimeoutError as e:
            raise late(self.limits.seconds) from e

    def _search(self, feature: np.ndarray, k: int, far: float | None) -> Found:
        gallery = self.gallery()
        limit = None
        if threshold := self.threshold(far):
            calibration = self.knowledge.calibration
            assert calibration is not None
            limit = limit_at_far(
                calibration, threshold.far, len(gallery), self.knowledge.measured_on
            )
        answers = gallery.search(feature[None], k)
        pairs = zip(answers.ids[0].tolist(), answers.cosines[0].tolist(), strict=True)
        rows = [(gallery.row(id), cosine) for id, cosine in pairs]
        return Found(rows, limit, len(gallery))

    def _expect_model(self, gallery: Gallery) -> None:
        """Raise UserError for a gallery of another model, or of input prepared otherwise."""
        model = {"name": self.model.name, "sha256": self.model.hash}
        gallery.expect_model(model, "--model")
        known = gallery.manifest.model or {}
        if known and known.get("description") != self.model.description:
            raise UserError(
                f"--model: embeds by {self.model.description}; the features of {gallery.folder} "
                f"are by {known.get('description')}"
            )

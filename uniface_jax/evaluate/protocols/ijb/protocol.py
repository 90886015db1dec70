"""Protocol `ijb`: IJB-B and IJB-C, pairs of templates (1:1) and search in galleries (1:N)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from uniface_jax.data.faces.alignment import align, aligned_landmarks
from uniface_jax.data.formats import images as image_files
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import (
    Side,
    accept_counts,
    far_thresholds,
    hard_pairs,
    histogram,
    resamples,
    roc_line,
    tar_bars,
)
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.metrics.bootstrap import joined_people
from uniface_jax.evaluate.metrics.identification import ijb_evals, search
from uniface_jax.evaluate.metrics.pair_intervals import scores_by_people, tar_intervals
from uniface_jax.evaluate.metrics.roc import roc
from uniface_jax.evaluate.metrics.verification import unit_pair_scores
from uniface_jax.evaluate.protocols.base import (
    Options,
    Protocol,
    Results,
    SetResult,
    tar_cells,
)
from uniface_jax.evaluate.protocols.ijb.galleries import SearchTemplates, read_search_templates
from uniface_jax.evaluate.protocols.ijb.images import (
    IjbImages,
    IjbPairs,
    read_images,
    read_template_pairs,
)
from uniface_jax.evaluate.protocols.ijb.metrics import FARS, one_to_one_metrics
from uniface_jax.evaluate.protocols.ijb.templates import (
    template_features,
    template_rows,
)
from uniface_jax.evaluate.protocols.searches import search_cells, search_result
from uniface_jax.evaluate.sets.image_sets import Digest, ImageSet

NAMES = ("ijbb", "ijbc")
CROPS = "loose_crop"


class IjbCrops(ImageSet):
    """Faces of an IJB directory, moved to the template by the landmarks of its meta files."""

    def __init__(self, name: str, root: Path, landmark_file: Path, images: IjbImages) -> None:
        self.name = name
        self.root = root
        self._landmark_file = landmark_file
        self._images = images

    @override
    def __len__(self) -> int:
        return len(self._images.names)

    @override
    def label(self, index: int) -> str:
        return str(self.root / CROPS / self._images.names[index])

    @override
    def pixels(self, index: int) -> np.ndarray:
        path = self.root / CROPS / self._images.names[index]
        pixels = image_files.decode(read_image_file(path), str(path))
        try:
            return align(pixels, self._images.landmarks[index])
        except ValueError as e:
            raise UserError(f"{self._landmark_file}: line {index + 1}: {e}") from e

    @override
    def landmarks(self, index: int) -> np.ndarray:
        return aligned_landmarks(self._images.landmarks[index])

    @override
    def digest(self, files: Digest) -> str:
        # Of the crops and the landmarks; without crops, of the meta files alone.
        names = [f"meta/{self._landmark_file.name}"]
        if (self.root / CROPS).is_dir():
            names += [f"{CROPS}/{name}" for name in self._images.names]
        return files(self.root, names)


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate NAME for 1:1, where its pairs are there, and NAME_1N_… of each gallery and of both.

    Everything in meta/ is read and checked before anything is embedded.
    """
    results: Results = {}
    for root in parts.paths:
        name = _name_of(root)
        if name in results:
            raise UserError(f"--data: {root}: a second directory of {name}")
        results |= _Directory(root, name).evaluate(source, options)
    return results


class _Directory:
    """One directory with meta/ and, unless features are given, loose_crop/."""

    def __init__(self, root: Path, name: str) -> None:
        meta = root / "meta"
        self.name = name
        landmark_file = meta / f"{name}_name_5pts_score.txt"
        self.images = read_images(meta / f"{name}_face_tid_mid.txt", landmark_file)
        self.crops = IjbCrops(name, root, landmark_file, self.images)
        self.ids = np.unique(self.images.templates)
        pair_file = meta / f"{name}_template_pair_label.txt"
        probe_file = meta / f"{name}_1N_probe_mixed.csv"
        self.pairs = self._pairs(pair_file) if pair_file.is_file() else None
        self.galleries: dict[str, SearchTemplates] = {}
        if probe_file.is_file():
            self.probes = read_search_templates(probe_file, one_each=False)
            for file in sorted(meta.glob(f"{name}_1N_gallery_*.csv")):
                gallery = read_search_templates(file, one_each=True)
                self.galleries[file.stem.rpartition("_")[2]] = gallery
            if not self.galleries:
                raise UserError(f"{meta}: {probe_file.name}, but no {name}_1N_gallery_*.csv")
        if self.pairs is None and not self.galleries:
            raise UserError(f"{meta}: neither {pair_file.name} nor {probe_file.name}")

    def _pairs(self, file: Path) -> IjbPairs:
        """Read the pairs, as rows of `ids`."""
        pairs = read_template_pairs(file)
        first, second = (template_rows(self.ids, ids, file) for ids in (pairs.first, pairs.second))
        if pairs.same.all() or not pairs.same.any():
            raise UserError(f"{file}: all {len(pairs.same)} pairs are of one kind; expected both")
        return IjbPairs(first.astype(np.int32), second.astype(np.int32), pairs.same)

    def evaluate(self, source: FeatureSource, options: Options) -> Results:
        """Embed all crops, and return the result of 1:1 and of each search."""
        rows = {
            key: template_rows(self.ids, found.templates, found.file, found.lines)
            for key, found in {**self.galleries, "": self.probes}.items()
        } if self.galleries else {}  # fmt: skip
        found = source.features(self.crops)
        images = self.images
        try:
            _, unit = template_features(found.values, images.templates, images.media, images.scores)
        except UserError as e:
            raise UserError(f"{self.name} with {source.name}: {e}") from e
        common = {
            "images": len(self.crops),
            "templates": len(self.ids),
            "media": len(np.unique(np.stack([images.templates, images.media]), axis=1).T),
            **found.record,
        }
        results: Results = {}
        if self.pairs is not None:
            results[self.name] = self._one_to_one(self.pairs, unit, common, options)
        for key, mates, gallery in self._searches(rows):
            searches = search(unit[gallery], unit[rows[""]], mates)
            subjects = self.probes.subjects
            results[f"{self.name}_1N_{key}"] = search_result(
                {**common, "probes": len(mates), "reading": options.search_reading},
                searches,
                (subjects[mates >= 0], subjects[mates < 0]),
                {"ijb_evals": ijb_evals(searches)},
            )
        return results

    def _one_to_one(
        self, pairs: IjbPairs, unit: np.ndarray, common: Mapping[str, Any], options: Options
    ) -> SetResult:
        scores = unit_pair_scores(unit, pairs.first, pairs.second)
        curve = roc(scores, pairs.same)
        same = pairs.same
        people = joined_people(pairs.first[same], pairs.second[same], len(self.ids))
        metrics = one_to_one_metrics(curve, options.fars_or(FARS))
        resampled = tar_intervals(
            metrics["tar_at_far"],
            scores_by_people(scores, same, people[pairs.first], people[pairs.second]),
        )

        def side(row: int) -> Side:
            images = np.flatnonzero(self.images.templates == self.ids[row])
            best = images[np.argmax(self.images.scores[images])]
            return int(best), f"template {self.ids[row]}, {len(images)} images"

        def sides(pair: int) -> tuple[Side, Side]:
            return side(pairs.first[pair]), side(pairs.second[pair])

        drawings = {
            "roc": roc_line(curve) | tar_bars(resampled.intervals),
            "counts": accept_counts(curve),
            "scores": histogram(
                scores[pairs.same], scores[~pairs.same], far_thresholds(metrics["tar_at_far"])
            ),
            "pairs": hard_pairs(scores, pairs.same, sides, self.crops),
            "resamples": resamples(resampled.intervals, resampled.estimates, resampled.replicates),
        }
        uncertainty = {"intervals": resampled.intervals, "thresholds": resampled.thresholds}
        return SetResult({**common, **metrics}, drawings, uncertainty)

    def _searches(self, rows: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Return (name, mates of the probes, rows of the gallery) of each gallery, and of all.

        All as one is a closed set, and what insightface's script searches.
        """
        found = []
        for key, gallery in self.galleries.items():
            found.append((key, _mates(gallery.subjects, self.probes.subjects), rows[key]))
        if len(self.galleries) > 1:
            subjects = np.concatenate([g.subjects for g in self.galleries.values()])
            both = np.concatenate([rows[key] for key in self.galleries])
            subjects, first = np.unique(subjects, return_index=True)
            found.append(("all", _mates(subjects, self.probes.subjects), both[first]))
        for key, mates, _ in found:
            if not (mates >= 0).any():
                raise UserError(
                    f"{self.probes.file}: no probe has its subject in the gallery {key}"
                )
        return found


def _mates(gallery: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Return the gallery's entry of each probe's subject, int [Q], or -1."""
    order = np.argsort(gallery)
    at = np.minimum(np.searchsorted(gallery[order], probes), len(gallery) - 1)
    return np.where(gallery[order[at]] == probes, order[at], -1)


def _name_of(root: Path) -> str:
    """Return ijbb or ijbc, by the files in root/meta."""
    names = [name for name in NAMES if (root / "meta" / f"{name}_face_tid_mid.txt").is_file()]
    if len(names) != 1:
        expected = " or ".join(f"{name}_face_tid_mid.txt" for name in NAMES)
        raise UserError(f"{root}: {len(names)} of the files meta/{expected}; expected one")
    return names[0]


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table: another for 1:1 than for 1:N."""
    if "closed_set" not in metrics:
        return {
            "templates": f"{metrics['templates']:,}",
            "pairs": f"{metrics['pairs']:,}",
            **tar_cells(metrics, "nearest"),
            **tar_cells(metrics, "strict"),
        }
    reading = metrics.get("reading", "definition")
    return {
        "probes": f"{metrics['probes']:,}",
        **({} if reading == "definition" else {"reading": reading}),
        **search_cells(metrics if reading == "definition" else metrics[reading]),
    }


IJB = Protocol("IJB-B and IJB-C", PartNames("DIRECTORY with meta/ and loose_crop/"), run, row)

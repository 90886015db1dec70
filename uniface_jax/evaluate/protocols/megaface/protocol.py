"""Protocol `megaface`: challenge 1 on any probe and distractor folders, raw and refined."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import Drawing, resamples, rounded, tar_bars, thinned
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.all_pairs_results import (
    PairImages,
    bar,
    drawings_of,
    features_and_record,
    named,
)
from uniface_jax.evaluate.protocols.base import (
    Options,
    Protocol,
    Results,
    SetResult,
    tar_cells,
)
from uniface_jax.evaluate.protocols.megaface.noise_lists import clean_rows, read_noise_list
from uniface_jax.evaluate.sets.identity_folders import read_identities, read_images_below

if TYPE_CHECKING:  # JAX comes with it
    from uniface_jax.evaluate.protocols.megaface.metrics import MegaFace

FARS = (1e-6,)


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate the sets `raw` and, with a noise list, `refined`, or its label leak as well."""
    from uniface_jax.evaluate.all_pairs.engine import Targets
    from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
    from uniface_jax.evaluate.protocols.megaface import metrics as challenge
    from uniface_jax.evaluate.protocols.megaface.intervals import megaface_intervals

    named_parts = parts.named
    if options.label_leak and "noisy_probes" not in named_parts:
        raise UserError("--label_leak: of MegaFace's noisy probes, and noisy_probes= is missing")
    noise = [
        read_noise_list(named_parts[key]) if key in named_parts else None
        for key in ("noisy_probes", "noisy_distractors")
    ]
    probes = read_identities(
        "megaface_probes", named_parts["probes"], skip_faults=options.skip_faults
    )
    folder = named_parts["distractors"]
    distractors = read_images_below("megaface_distractors", folder, "images of distractors")
    features, record = features_and_record(source, probes)
    others = source.features(distractors)
    record |= {
        "distractor_folder": str(distractors.root),
        "distractors": len(distractors),
        "distractors_sha256": others.record["sha256"],
    }
    names = probes.images.names, distractors.names
    clean = None
    if any(listed is not None for listed in noise):
        rows = (
            clean_rows(n, listed or frozenset()) for n, listed in zip(names, noise, strict=True)
        )
        clean = challenge.Clean(*rows)
    try:
        runs = challenge.megaface_runs(
            LabeledFeatures(features, probes.labels),
            others.values,
            clean,
            challenge=challenge.Challenge(
                pairs=Targets(options.fars_or(FARS)), label_leak=options.label_leak
            ),
            progress=bar("megaface"),
        )
    except UserError as e:
        folders = f"{probes.images.root} and {distractors.root}"
        raise named(e, folders, source) from e
    images = PairImages((probes.images, probes.images), (probes.images, distractors))
    results: Results = {}
    for name, result in runs.items():
        metrics = challenge.megaface_metrics(result)
        found = megaface_intervals(result)
        drawings = _drawings(result, metrics, images)
        drawings["roc"] |= tar_bars(found.intervals)
        drawings["resamples"] = resamples(found.intervals, found.estimates, found.replicates)
        uncertainty = {"intervals": found.intervals, "thresholds": found.thresholds}
        results[name] = SetResult({**record, **metrics}, drawings, uncertainty)
    return results


def _drawings(
    result: "MegaFace", metrics: Mapping[str, Any], images: PairImages
) -> dict[str, Drawing]:
    last = result.cmc[-1]
    shown = thinned(len(last.ranks))
    return {
        "distractors": {
            "distractors": [cmc.distractors for cmc in result.cmc],
            "rates": [cmc.rate(1) for cmc in result.cmc],
        },
        "cmc": {"ranks": last.ranks[shown].tolist(), "rates": rounded(last.rates[shown])},
        **drawings_of(result.verification, metrics["verification"]["tar_at_far"], images),
    }


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table."""
    last = metrics["identification"][-1]
    return {
        "probes": f"{metrics['probes']:,}",
        "identities": f"{metrics['identities']:,}",
        "distractors": f"{last['distractors']:,}",
        **{f"rank {rank}": f"{rate:.2%}" for rank, rate in last["rank"].items() if rank != "100"},
        **tar_cells(metrics["verification"]),
    }


MEGAFACE = Protocol(
    "MegaFace challenge 1",
    PartNames(
        "",
        {
            "probes": "FOLDER/PERSON/IMAGE",
            "distractors": "FOLDER of images",
            "noisy_probes": "FILE",
            "noisy_distractors": "FILE",
        },
        ("probes", "distractors"),
    ),
    run,
    row,
)

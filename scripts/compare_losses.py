"""Compare losses: one network trained with each under one budget, measured on people never seen.

    python scripts/compare_losses.py                                     # the demo's faces
    python scripts/compare_losses.py --sets=lfw-all,lfw-two --lfw=FOLDER --json=losses.json

Every loss gets the same images in the same order, the same seeds and the same steps; only the keys
of LOSSES differ. A training that is finished, and measured, is not done again: the same command
resumes. With --teacher each loss stands there twice, alone and distilled. Intervals hold 95 % of
300 draws of other people and other seeds; the difference from --baseline is taken draw by draw.
FOLDER has lfw_112.tar and LFW's lists: people of peopleDevTrain train, all of them (lfw-all) or
those with two images or more (lfw-two), and pairsDevTest, all of other people, is measured.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comparison_table
import jax
import numpy as np
from comparison_sets import ComparedSet, demo_set, lfw_sets, source_set
from ml_collections import ConfigDict
from turns import write_json

from uniface_jax.cli import recipes, say
from uniface_jax.config import base, to_json
from uniface_jax.config.keys import flatten
from uniface_jax.errors import UserError
from uniface_jax.evaluate.report.paper import MR_ALL, published
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.inspection.comparison import measure
from uniface_jax.inspection.workdir import read_history
from uniface_jax.losses import LOSSES as KNOWN
from uniface_jax.runtime import xla_flags
from uniface_jax.train.loop import train_and_evaluate
from uniface_jax.train.run_log import METRICS_FILE

RESULT = "measured.json"
EPOCHS = {"demo": 40.0, "lfw-all": 4.2, "lfw-two": 6.0}  # of LFW as many images each
OTHER_EPOCHS = 20.0


@dataclass(frozen=True)
class Entry:
    """A loss as it is compared: its title, the keys that make it, and what its paper says.

    settings: values by dotted key. paper: the row of evaluate.report.paper, by its method.
    claim: what else is published, in words.
    """

    title: str
    settings: Mapping[str, Any]
    paper: str = ""
    claim: str = ""

    def published(self) -> str:
        """Return what the paper says: MR-All, percent, of CASIA and R50; "-" for nothing."""
        if self.paper:
            return f"{published('CASIA, R50', self.paper)[MR_ALL]:.2f} ({self.paper})"
        return self.claim or "-"

    def missing(self, known: Mapping[str, Any]) -> str:
        """Return the key, or the loss, that this version does not have; "" where it has all."""
        absent = [key for key in self.settings if key not in known]
        name = self.settings["loss.name"]
        return absent[0] if absent else "" if name in KNOWN else f"loss.name={name}"


def _loss(title: str, name: str, paper: str = "", claim: str = "", **keys: Any) -> Entry:
    settings = {"loss.name": name, **{f"loss.{key}": value for key, value in keys.items()}}
    return Entry(title, settings, paper, claim)


# Where the paper has a row with the same margin it stands beside; CosFace's has .35. UniTSFace's is
# of Jia et al., NeurIPS 2023, which trained class and sample losses together.
LOSSES: Mapping[str, Entry] = {
    "nsl": _loss("NSL", "nsl", "NSL, no margin"),
    "bce": _loss("BCE", "bce", "BCE, no margin", margin=0.0),
    "uce0": _loss("UCE, no margin", "uce", "UCE, no margin", margin=0.0),
    "uce": _loss("UCE, m .4", "uce", "UCE-M"),
    "cosface": _loss("CosFace, m .4", "cosface", "CosFace m .35"),
    "arcface": _loss("ArcFace, m .5", "arcface", "ArcFace m .5"),
    "sphereface2": _loss("SphereFace2", "sphereface2", "SphereFace2"),
    "magface": _loss("MagFace", "magface"),
    "uce_uss": _loss("UCE + USS", "uce", with_samples=True),
    "cosface_uss": _loss("CosFace + USS", "cosface", claim="50.28 (UniTSFace)", with_samples=True),
}


@dataclass(frozen=True)
class Budget:
    """Holds what every training of a set gets. settings: further keys, as --config has them."""

    epochs: float
    seeds: int
    resamples: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def config_of(compared: ComparedSet, entry: Entry, seed: int, budget: Budget) -> ConfigDict:
    """Return the config of the demo with half of its network's width, as the notebook has it."""
    _, config = recipes.load(recipes.locate("demo"))
    values = {
        "seed": seed,
        "data.train": str(compared.train),
        "data.prepare": "",
        "eval.data": "",
        "model.dropout": 0.0,
        "model.width": 8,
        "steps": None,
        "epochs": budget.epochs,
        "optim.warmup_epochs": budget.epochs / 10,
        "checkpoint.every_steps": 10**6,  # and after the last one
        "checkpoint.keep": 1,
        "log.every_steps": 20,
        **entry.settings,
        **budget.settings,
    }
    with config.ignore_type():
        config.update_from_flattened_dict(values)
    return config


def run(compared: ComparedSet, config: ConfigDict, folder: Path, resamples: int) -> dict[str, Any]:
    """Train and measure, or read what an earlier call has measured of the same."""
    file, facts = folder / RESULT, {"config": to_json(config), "resamples": resamples}
    if file.is_file():
        kept = read_json(file, "compare_losses.py writes it")
        if {key: kept.get(key) for key in facts} == facts:
            return kept
        raise UserError(f"{file}: of another budget or version; give another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with (folder / "log.txt").open("a") as log:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            train_and_evaluate(config, folder)
        trained = time.perf_counter()
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            found = measure(folder, compared.seen, compared.unseen, resamples)
    loss = float(read_history(folder / METRICS_FILE)["loss"][-1])
    seconds = {"training": trained - began, "measuring": time.perf_counter() - trained}
    kept = {**facts, **found, "loss": loss, "seconds": seconds}
    write_bytes(file, json.dumps(kept).encode())
    return kept


def compare(
    sets: Sequence[ComparedSet], entries: Mapping[str, Entry], budgets: Mapping[str, Budget],
    workdir: Path, json_file: Path | None, baseline: str,
) -> dict[str, Any]:  # fmt: skip
    """Run everything, and return the report; it is written anew after each run."""
    jobs = [
        (compared, name, seed)
        for seed in range(max(budget.seeds for budget in budgets.values()))
        for compared in sets
        for name in entries
        if seed < budgets[compared.name].seeds
    ]
    found: dict[str, dict[str, list[dict]]] = {
        compared.name: {name: [] for name in entries} for compared in sets
    }
    took: list[float] = []
    report: dict[str, Any] = {}
    for number, (compared, name, seed) in enumerate(jobs, 1):
        budget = budgets[compared.name]
        config = config_of(compared, entries[name], seed, budget)
        began = time.perf_counter()
        result = run(
            compared, config, workdir / compared.name / f"{name}-{seed}",
            budget.resamples,
        )  # fmt: skip
        found[compared.name][name].append(result)
        jax.clear_caches()  # fifty runs' programs are more regions of memory than Linux allows
        seconds = time.perf_counter() - began
        if seconds > 1:
            took.append(seconds)
        left = statistics.median(took or [0.0]) * (len(jobs) - number) / 60
        report = comparison_table.report(sets, entries, found, baseline)
        write_json(json_file, report)
        say(
            f"[{number}/{len(jobs)}] {compared.name}: {entries[name].title}, seed {seed}: accuracy "
            f"{result['draws']['accuracy'][0]:.4f}, {seconds:.0f} s; about {left:.0f} min left"
        )
    return report


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE of a config's keys, each of the type that its default has."""
    known, found = flatten(base()), {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise UserError(f"--set={text}: expected KEY=VALUE of a config's key")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def named(given: str, known: Mapping[str, Any] | Sequence[str], flag: str) -> list[str]:
    """Split names at commas; UserError for one that is not known."""
    names = list(dict.fromkeys(given.split(",")))
    for name in names:
        if name not in known:
            raise UserError(f"{flag}={name}: expected some of {', '.join(known)}")
    return names


def opened_sets(args: argparse.Namespace) -> list[ComparedSet]:
    """Return the sets that the flags name."""
    if args.train:
        return [source_set("own", Path(args.train), args.pairs)]
    names = named(args.sets, tuple(EPOCHS), "--sets")
    of_lfw = [name for name in names if name.startswith("lfw")]
    if of_lfw and args.lfw is None:
        raise UserError("--sets=lfw-…: --lfw names the folder of lfw_112.tar and LFW's lists")
    sets = [demo_set(args.workdir / "faces")] if "demo" in names else []
    return sets + (lfw_sets(args.lfw, args.workdir / "lfw-sets", of_lfw) if of_lfw else [])


def chosen_entries(args: argparse.Namespace) -> dict[str, Entry]:
    """Return the losses that are compared; those that this version lacks are named and left out."""
    names, known = named(args.losses or ",".join(LOSSES), LOSSES, "--losses"), flatten(base())
    entries = {}
    for name in names:
        if lacking := LOSSES[name].missing(known):
            if args.losses:
                raise UserError(f"--losses={name}: this version has no {lacking}")
            say(f"{LOSSES[name].title} is left out: this version has no {lacking}")
            continue
        entries[name] = LOSSES[name]
    if args.baseline not in entries:
        raise UserError(f"--baseline={args.baseline}: expected one of {', '.join(entries)}")
    if args.teacher:
        entries |= {
            f"{name}_distilled": distilled(entry, args.teacher) for name, entry in entries.items()
        }
    return entries


def distilled(entry: Entry, teacher: str) -> Entry:
    """Return the loss with a teacher beside it, of which its paper says nothing."""
    settings = {**entry.settings, "distill.teacher": teacher}
    return Entry(f"{entry.title}, distilled", settings)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sets", default="demo", help="of demo, lfw-all, lfw-two, by commas")
    made.add_argument("--lfw", type=Path, help="the folder of lfw_112.tar and LFW's lists")
    made.add_argument("--train", help="another training set, of at most 2,000 images")
    made.add_argument("--pairs", type=Path, help="with --train: a .bin of pairs of other people")
    made.add_argument("--losses", help=f"by commas, default all: {', '.join(LOSSES)}")
    made.add_argument("--baseline", default="uce", help="the loss that others are compared with")
    made.add_argument(
        "--teacher", help="a workdir or ONNX file: each loss is distilled from it too"
    )
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--epochs", type=float, help=f"default: {EPOCHS}")
    made.add_argument("--resamples", type=int, default=300, help="draws of people and seeds")
    made.add_argument("--set", action="append", default=[], help="KEY=VALUE of every config")
    made.add_argument("--workdir", type=Path, default=Path("runs/compare"))
    made.add_argument("--json", type=Path, help="file for all numbers")
    return made


def main() -> None:
    args = parser().parse_args()
    if args.seeds < 1 or args.resamples < 1:
        raise UserError(f"--seeds={args.seeds}, --resamples={args.resamples}: must be at least 1")
    if bool(args.train) != bool(args.pairs):
        raise UserError("--train and --pairs are given together")
    xla_flags.set_flags()
    entries, settings = chosen_entries(args), parse_settings(args.set)
    sets = opened_sets(args)
    budgets = {
        compared.name: Budget(
            args.epochs or EPOCHS.get(compared.name, OTHER_EPOCHS),
            args.seeds, args.resamples, settings,
        )
        for compared in sets
    }  # fmt: skip
    report = compare(sets, entries, budgets, args.workdir, args.json, args.baseline)
    for line in comparison_table.text(report).splitlines():
        say(line)


if __name__ == "__main__":
    np.seterr(all="ignore")
    try:
        main()
    except UserError as e:
        sys.exit(f"error: {e}")

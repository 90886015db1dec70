"""Training set of a run, of one set or several: opened, its order, and what a run records of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from uniface_jax.data.input.balance import NONE, class_order
from uniface_jax.data.input.label_noise import NoisyLabels
from uniface_jax.data.input.order import MAX_DRAWS, Order
from uniface_jax.data.sources.base import Source, digest
from uniface_jax.data.sources.joined import BY_NAME, JoinedSource, members, quick_fingerprint
from uniface_jax.data.sources.names import Names
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.errors import UserError

Record = dict[str, Any]


def open_training_set(config: ConfigDict, data: str | None = None) -> Source:
    """Open what config.data.train names, or `data` in its place, as the config says.

    Raises UserError as open_source, and where the ratios are of another number of sets.
    """
    options = SourceOptions(config.data.on_error == "skip", people=config.data.people)
    source = open_source(data or config.data.train, options)
    sets = len(members(source))
    if data:
        return source
    if config.data.people == BY_NAME and sets == 1:
        raise UserError(
            f"config.data.people={BY_NAME}: {source.name} is one set; expected several by commas"
        )
    if config.data.ratios and len(config.data.ratios) != sets:
        raise UserError(
            f"config.data.ratios={tuple(config.data.ratios)}: {len(config.data.ratios)} for the "
            f"{sets} sets of config.data.train; expected one for each"
        )
    return source


def with_label_noise(config: ConfigDict, source: Source) -> Source:
    """Return the source whose labels are trained on: `source`, or with config.data.label_noise."""
    share = config.data.label_noise
    return NoisyLabels(source, share, config.seed) if share else source


def _clean(source: Source) -> Source:
    return source.source if isinstance(source, NoisyLabels) else source


def make_order(config: ConfigDict, source: Source) -> Order | None:
    """Return how often an epoch has each image; None where it has each once.

    source: as with_label_noise returns it. Raises UserError for a ratio of which an epoch would see
    nothing of its set.
    """
    sets = members(_clean(source))
    sizes, ratios = [len(each) for each in sets], config.data.ratios
    balance, cap = config.data.balance, config.data.class_cap
    if balance != NONE or cap is not None:
        weighted = [*zip(sizes, ratios or [1.0] * len(sizes), strict=True)]
        return class_order(source, weighted, balance, cap)
    if all(ratio == 1 for ratio in ratios):
        return None
    quotas = [round(size * ratio) for size, ratio in zip(sizes, ratios, strict=True)]
    if 0 in quotas:
        place = quotas.index(0)
        raise UserError(
            f"config.data.ratios={tuple(ratios)}: {ratios[place]:g} of the {sizes[place]} images "
            f"of {sets[place].name} is none; expected at least {1 / sizes[place]:.2g}"
        )
    if sum(quotas) > MAX_DRAWS:
        raise UserError(f"config.data.ratios={tuple(ratios)}: an epoch of {sum(quotas)} images")
    return Order.of_groups(sizes, quotas)


def epoch_length(source: Source, order: Order | None) -> int:
    """Return the images of an epoch, each as often as it is seen."""
    return order.length if order else len(source)


def records_of(source: Source) -> list[Record]:
    """Return of each set what a resumed run has to find again; JSON."""
    joined = isinstance(source, JoinedSource) and source.people == BY_NAME
    return [
        {
            "name": each.name,
            "images": len(each),
            "classes": each.num_classes,
            "fingerprint": quick_fingerprint(each),
            **({"people": _names_digest(each)} if joined else {}),
        }
        for each in members(source)
    ]


def _names_digest(source: Source) -> str:
    return digest(*Names(source.class_names or []).arrays())


def changed_sets(saved: Sequence[Mapping[str, Any]] | None, now: Sequence[Record]) -> str:
    """Return in words which set differs from that of a checkpoint, and how; "" where none does.

    saved: records_of the run that was saved; None is of a version that kept none.

    Raises:
        UserError: the people of a set are others: the prototypes are those of the former ones.
    """
    for before, found in zip(saved or [], now, strict=False):
        name = found["name"]
        for key, what in (("classes", "classes"), ("people", "names of people")):
            if key in before and before[key] != found.get(key):
                raise UserError(
                    f"{name}: has other {what} than the set that the run was trained on; restore "
                    "it, or start another run from it: --config.finetune=WORKDIR --workdir=NEW"
                )
        if before["images"] != found["images"]:
            return (
                f"{name}: num_examples is {found['images']}, but the run was trained on "
                f"{before['images']}"
            )
        if before["fingerprint"] and before["fingerprint"] != found["fingerprint"]:
            return f"{name}: is not the set that the run was trained on (by its fingerprint)"
    return ""


def describe(source: Source, order: Order | None, config: ConfigDict) -> list[str]:
    """Return lines on what is trained on: its sets, balance and noise.

    source: as with_label_noise returns it. order: as make_order does.
    """
    lines = describe_sets(_clean(source), config)
    if order is not None and order.table is not None:
        quotas = order.quotas[order.quotas > 0]
        lines.append(
            f"  balance {config.data.balance}: an epoch is {order.length} images, "
            f"{quotas.min()} to {quotas.max()} of each of {len(quotas)} classes"
        )
    if isinstance(source, NoisyLabels):
        lines.append(
            f"  label noise: {source.noisy} of {len(source)} images have exchanged their labels "
            f"(config.data.label_noise={config.data.label_noise:g})"
        )
    return lines


def describe_sets(source: Source, config: ConfigDict) -> list[str]:
    """Return a line for each of several sets, and one of what they share; [] for one set."""
    if not isinstance(source, JoinedSource):
        return []
    sizes = np.array([len(each) for each in source.sources])
    ratios = np.array(config.data.ratios or [1] * len(sizes), np.float64)
    shares = sizes * ratios / (sizes * ratios).sum()
    lines = [
        f"  {each.name}: {len(each)} images of {each.num_classes} people, ratio {ratio:g}: "
        f"{share:.1%} of an epoch"
        for each, ratio, share in zip(source.sources, ratios, shares, strict=True)
    ]
    if source.people == BY_NAME:
        together = sum(each.num_classes for each in source.sources)
        lines.append(f"  {together - source.num_classes} of their people are joined by name")
    return lines

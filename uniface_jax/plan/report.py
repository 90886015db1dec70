"""Puts a plan together: memory, work, communication and time of a run, as a table and as JSON."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.errors import UserError
from uniface_jax.head.block_size import bytes_a_class, even_block
from uniface_jax.head.shards import shard_size
from uniface_jax.plan import counted, memory, program, work
from uniface_jax.plan.attention import AttentionWork, attention_work, describe
from uniface_jax.plan.fleet import GB, Data, Fleet
from uniface_jax.train import input_checks
from uniface_jax.train.from_config import Recipe, make_recipe

MAX_IMAGES = 1 << 16  # on a device, when looking for the largest batch
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Largest:
    """Largest sizes that would still fit, all else as it is; 0 where nothing does.

    batch: over all devices, with the same number of micro-batches. block: classes at a time.
    """

    batch: int
    block: int


@dataclass(frozen=True)
class RunPlan:
    """Whole plan; bytes, seconds and images/s, memory and work of one device."""

    devices: int
    batch_size: int
    micro_batches: int
    block: int
    data: Data
    needs: memory.Needs
    allowed: float
    fits: bool
    largest: Largest
    flops: float
    sent: float
    step_seconds: float
    communication_seconds: float
    images_per_second: float
    steps: int
    days: float
    notes: list[str]
    attention: AttentionWork | None = None
    compiled: program.CompiledMemory | None = None
    on_target: counted.Counted | None = None

    def as_json(self) -> dict[str, Any]:
        """Return everything by name, with totals."""
        record = asdict(replace(self, compiled=None, on_target=None)) | {
            "needs": self.needs._asdict()
        }
        record["attention"] = self.attention._asdict() if self.attention else None
        record["needs"]["total"] = self.needs.total
        if self.compiled:
            record["compiled"] = self.compiled._asdict() | {"total": self.compiled.total}
            record["compiled"]["predicted"] = self.within_a_step
        else:
            record.pop("compiled")
        if self.on_target:
            record["on_target"] = self.on_target.as_json()
        else:
            record.pop("on_target")
        return record

    @property
    def within_a_step(self) -> int:
        """Return the bytes that the compiler can see: without the batches ahead."""
        ahead = memory.PREFETCHED_BATCHES
        return self.needs.total - self.needs.batches * ahead // (1 + ahead)


def make_plan(
    config: ConfigDict,
    data: Data,
    fleet: Fleet,
    *,
    verify: bool = False,
    network: memory.NetworkMemory | None = None,
    progress: Progress = lambda text: None,
) -> RunPlan:
    """Return the plan of `config` on these devices.

    network: probes that were made for the same model, images and micro-batches; None makes them.
    With `verify` the real program is compiled too, for so many devices of this process; where the
    fleet has a target, for that, if its compiler is there. Where the fleet is here, it is the
    program that this process would run, and its memory is the compiler's account; there are no
    probes. For a target the arrays of the traced step are followed in their place. Raises
    UserError for a config that such devices cannot run.
    """
    devices, device = fleet.count, fleet.device
    configs.check(config, devices)
    recipe, jaxpr, network, compiled = _programs(config, data, fleet, network, progress)
    needs = memory.predict(recipe, devices, network)
    done = work.count(jaxpr, devices)
    communication = done.sent / device.bandwidth
    seconds = done.flops / device.reached + communication
    notes, on_target = _on_target(recipe, fleet, progress)
    compiled = on_target.memory if on_target else compiled
    if verify and not compiled:
        progress("compiling the whole step")
        compiled = program.compiled_memory(recipe, devices)
    group, steps = recipe.batch_norm_group(devices), recipe.schedule.total_steps
    attention = attention_work(recipe.network, group, config.micro_batches)
    notes += [describe(attention, done.flops)] if attention else []
    return RunPlan(
        devices=devices,
        batch_size=config.batch_size,
        micro_batches=config.micro_batches,
        block=_block(recipe, devices),
        data=data,
        needs=needs,
        allowed=device.allowed,
        fits=needs.total <= device.allowed,
        largest=_largest(recipe, devices, network, device.allowed),
        flops=done.flops,
        sent=done.sent,
        step_seconds=seconds,
        communication_seconds=communication,
        images_per_second=config.batch_size / seconds,
        steps=steps,
        days=steps * seconds / 86400,
        notes=notes,
        attention=attention,
        compiled=compiled,
        on_target=on_target,
    )


def _programs(
    config: ConfigDict,
    data: Data,
    fleet: Fleet,
    network: memory.NetworkMemory | None,
    progress: Progress,
) -> tuple[Recipe, Any, memory.NetworkMemory, program.CompiledMemory | None]:
    """Return the recipe, its traced step, what its network takes, and what was compiled here."""
    if fleet.here:
        recipe = make_recipe(config, data.of_epoch, data.classes)
        progress("compiling the step as this machine would run it")
        compiled = program.compiled_memory(recipe, fleet.count, nullcontext())
        network = memory.network_of(recipe, fleet.count, compiled.working)
        return recipe, program.trace(recipe, fleet.count), network, compiled
    recipe = program.planned(config, data.of_epoch, data.classes, fleet.target)
    if network is None and not fleet.target:
        network = memory.probe_network(recipe, fleet.count, progress)
    progress("tracing a step")
    jaxpr = program.trace(recipe, fleet.count)
    if network is None and fleet.target:
        network = memory.traced_network(recipe, fleet.target, jaxpr)
    assert network is not None
    return recipe, jaxpr, network, None


def _on_target(
    recipe: Recipe, fleet: Fleet, progress: Progress
) -> tuple[list[str], counted.Counted | None]:
    """Return notes, and what the compiler of the fleet's target says, where there are both."""
    found, notes = None, []
    if fleet.target:
        target = fleet.target
        notes += input_checks.widened_products(recipe.config, target.chip, target.name)
        progress(f"compiling the whole step for {fleet.target.name}")
        try:
            found = counted.count(recipe, fleet.target)
        except UserError as e:
            notes.append(f"arithmetic alone: {e}")
    if recipe.config.model.dtype == "bfloat16" and not (fleet.here or fleet.target):
        notes.append("the compiler's account is of a CPU, which widens bfloat16: an upper bound")
    return notes, found


def _block(recipe: Recipe, devices: int) -> int:
    """Return how many classes the head of one device works on at a time."""
    return even_block(shard_size(recipe.num_classes, devices), recipe.settings.block_size)


def _largest(
    recipe: Recipe, devices: int, network: memory.NetworkMemory, allowed: float
) -> Largest:
    config = recipe.config
    groups = devices * config.micro_batches

    def batch_fits(images: int) -> bool:
        changed = recipe.with_batch_size(max(images, 1) * groups)
        return memory.predict(changed, devices, network).total <= allowed

    # A batch is at most the training set, of whose images a step would else be left out.
    images = memory.largest(batch_fits, min(MAX_IMAGES, recipe.num_images // groups))
    now = memory.predict(recipe, devices, network)
    samples = config.batch_size // config.micro_batches
    a_class = bytes_a_class(samples, config.model.embedding_size) * config.head.subcentres
    spare = math.floor((allowed - now.total) / a_class)
    block = _block(recipe, devices) + spare
    return Largest(images * groups, max(0, min(shard_size(recipe.num_classes, devices), block)))


def table(plan: RunPlan) -> str:
    """Return the plan as text for a terminal, what follows the heading."""
    gigabytes = {key.replace("_", " "): value / GB for key, value in plan.needs._asdict().items()}
    lines = [
        "",
        "memory on each device, GB",
        *(f"  {key:22}{value:9.3f}" for key, value in gigabytes.items()),
        f"  {'in all':22}{plan.needs.total / GB:9.3f}  of {plan.allowed / GB:.1f}: "
        + ("fits" if plan.fits else "DOES NOT FIT"),
        f"  largest batch that fits  {plan.largest.batch} "
        f"({plan.largest.batch // plan.devices} a device)",
        f"  block of classes         {plan.block:,}; largest that fits {plan.largest.block:,}",
    ]
    if plan.compiled:
        total = plan.compiled.total
        lines.append(
            f"  the compiler says        {total / GB:.3f} for the whole step; predicted "
            f"{plan.within_a_step / GB:.3f} ({plan.within_a_step / total - 1:+.1%})"
        )
    lines += [
        "",
        "a step",
        f"  {plan.flops / 1e12:.4g} TFLOP and {plan.sent / 1e6:.4g} MB sent by each device",
        f"  {plan.step_seconds:.3g} s, of which {plan.communication_seconds:.3g} s communication "
        "(none of it hidden)",
        "",
        *([counted.table(plan.on_target, plan.flops), ""] if plan.on_target else []),
        f"{plan.images_per_second:,.0f} images/s, {plan.steps:,} steps: {plan.days:.3g} days",
        *(f"note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)

"""Speed and memory of the UCE head: streamed, against the dense formula in PyTorch and in JAX.

with_samples and dense_torch_with_samples are UCE + USS: the second head beside the first, with the
memory's update, and the same as UniTSFace's release writes it.

    python scripts/bench_head.py --batch=256 --classes=131072 --dim=512 --json=head.json

Every variant runs in a process of its own, one loss with all gradients a turn, the turns
interleaved, since a shared machine's speed drifts. Reported are medians, the medians of ratios
taken turn by turn, the share of a plain matrix product of the machine in the same turns, and each
process's peak memory. PyTorch is optional: without it its rows are left out. UNIFACE_NATIVE=0 shows
what XLA alone makes of the streamed head.
"""

import argparse
import resource
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from turns import Worker, interleave, ratios, serve, write_json

from uniface_jax.head.sampling import sample_classes
from uniface_jax.head.shards import owned_classes
from uniface_jax.runtime import xla_flags

SCALE, MARGIN, SIDE = 64.0, 0.4, 2048  # SIDE: of the plain product's square matrices
SAMPLE_MARGIN, SAMPLE_BIAS = 0.1, 20.0  # of USS


def inputs(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.float32]:
    """Features [B, D], labels [B], prototypes [C, D] and the bias: the same for every variant."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((args.batch, args.dim), np.float32)
    labels = rng.integers(0, args.classes, args.batch, np.int32)
    prototypes = rng.standard_normal((args.classes, args.dim), np.float32)
    return features, labels, prototypes, np.float32(np.log(10 * args.classes))


def on_device(args: argparse.Namespace) -> list:
    import jax

    return [jax.block_until_ready(jax.device_put(x)) for x in inputs(args)]


def compiled_on_one(
    device: Callable, args: argparse.Namespace, arrays: list, **jit: int
) -> tuple[Callable, float]:
    """Compile a function of one device; return it with its working memory, a share of [B, C]."""
    import jax
    from jax.sharding import Mesh, PartitionSpec

    from uniface_jax.runtime.parallel import AXIS

    mapped = jax.shard_map(
        device,
        mesh=Mesh(np.array(jax.devices()[:1]), (AXIS,)),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    compiled = jax.jit(mapped, **jit).lower(*arrays).compile()
    tile = 4 * args.batch * args.classes
    return compiled, compiled.memory_analysis().temp_size_in_bytes / tile


def streamed(args: argparse.Namespace, rate: float = 1.0) -> tuple[Callable, dict]:
    import jax
    import jax.numpy as jnp

    from uniface_jax import losses
    from uniface_jax.head.block_size import block_of_budget
    from uniface_jax.head.blocks import Prototypes
    from uniface_jax.head.loss import Products, Shard, loss_and_gradients
    from uniface_jax.head.positives import gather

    block = block_of_budget(args.block_memory, args.batch, args.dim)
    dtype = jnp.dtype(args.dtype)

    def device(features, labels, weight, bias, seed):
        loss = losses.create("uce", scale=SCALE, margin=MARGIN)
        start, valid = owned_classes(args.classes, args.classes)
        prototypes, subset = Prototypes(weight, bias, valid), None
        if rate < 1:
            key = jax.random.key(seed)
            subset = sample_classes(key, labels, args.classes, args.classes, rate)
            prototypes = Prototypes(weight[subset.row], bias, subset.valid)
        shard = Shard(prototypes, start, args.classes, subset)
        products = Products(block, dtype)
        result = loss_and_gradients(loss, shard, gather(features, labels), products=products)
        return result.loss, result.gradients

    arrays = [*on_device(args), 0]
    compiled, share = compiled_on_one(device, args, arrays)
    return lambda: compiled(*arrays), {"block": block, "working_share_of_tile": share}


def with_samples(args: argparse.Namespace) -> tuple[Callable, dict]:
    import jax
    import jax.numpy as jnp

    from uniface_jax import losses
    from uniface_jax.head.block_size import block_of_budget
    from uniface_jax.head.blocks import Prototypes
    from uniface_jax.head.loss import Products, Shard, loss_and_gradients
    from uniface_jax.head.positives import gather
    from uniface_jax.head.samples import in_shard, sample_to_sample, written
    from uniface_jax.losses.additive import uss

    block = block_of_budget(args.block_memory, args.batch, args.dim)
    products = Products(block, jnp.dtype(args.dtype))

    def device(memory, sample_bias, features, labels, weight, bias):
        start, valid = owned_classes(args.classes, args.classes)
        shard = Shard(Prototypes(weight, bias, valid), start, args.classes)
        loss = losses.create("uce", scale=SCALE, margin=MARGIN)
        batch = gather(features, labels)
        first = loss_and_gradients(loss, shard, batch, products=products)
        between = sample_to_sample(
            uss(SCALE, SAMPLE_MARGIN), in_shard(memory, shard), sample_bias, batch,
            products,
        )  # fmt: skip
        both = first.gradients.features + between.by_features
        gradients = first.gradients._replace(features=both), between.by_bias
        after = written(memory, batch, start, between.loss)
        return after, first.loss + between.loss, gradients

    arrays = [jnp.float32(SAMPLE_BIAS), *on_device(args)]
    memory = jax.device_put(stored(args))
    compiled, share = compiled_on_one(device, args, [memory, *arrays], donate_argnums=0)
    kept = [memory]

    def run() -> tuple:
        after, loss, gradients = compiled(kept.pop(), *arrays)
        kept.append(after)
        return loss, gradients

    return run, {"block": block, "working_share_of_tile": share}


def stored(args: argparse.Namespace) -> np.ndarray:
    """Memory of features [C, D], the same for every variant."""
    return np.random.default_rng(1).standard_normal((args.classes, args.dim), np.float32)


def sampled(args: argparse.Namespace) -> tuple[Callable, dict]:
    return streamed(args, args.sampling_rate)


def dense_jax(args: argparse.Namespace) -> tuple[Callable, dict]:
    import jax
    import jax.numpy as jnp

    def loss(features, prototypes, bias, labels):
        unit = [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (features, prototypes)]
        cos = unit[0] @ unit[1].T
        one_hot = labels[:, None] == jnp.arange(args.classes)[None]
        positive = jnp.clip(SCALE * (cos - MARGIN) - bias, -SCALE, SCALE)
        negative = jnp.clip(SCALE * cos - bias, -SCALE, SCALE)
        terms = jnp.where(one_hot, jnp.log1p(jnp.exp(-positive)), jnp.log1p(jnp.exp(negative)))
        return jnp.mean(jnp.sum(terms, 1))

    features, labels, prototypes, bias = on_device(args)
    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    return lambda: both(features, prototypes, bias, labels), {}


def torch_cross_entropy(features, classes, bias, labels, margin):
    """UCE as the releases write it in PyTorch, over a whole [B, C]."""
    import torch

    cos = torch.nn.functional.linear(
        torch.nn.functional.normalize(features), torch.nn.functional.normalize(classes)
    )
    positive = SCALE * (cos - margin) - bias
    negative = SCALE * cos - bias
    positive = torch.log(1 + torch.exp(-positive.clamp(-SCALE, SCALE)))
    negative = torch.log(1 + torch.exp(negative.clamp(-SCALE, SCALE)))
    one_hot = torch.zeros(cos.shape, dtype=torch.bool)
    one_hot.scatter_(1, labels[:, None], True)
    return torch.where(one_hot, positive, negative).sum(1).mean()


def dense_torch(args: argparse.Namespace, samples: bool = False) -> tuple[Callable, dict]:
    import torch

    features, labels, prototypes, bias = (torch.as_tensor(x) for x in inputs(args))
    labels = labels.long()
    trained = [x.requires_grad_() for x in (features, prototypes, bias)]
    if samples:
        memory = torch.as_tensor(stored(args))
        sample_bias = torch.tensor(SAMPLE_BIAS, requires_grad=True)
        trained.append(sample_bias)

    def run() -> tuple:
        loss = torch_cross_entropy(features, prototypes, bias, labels, MARGIN)
        if samples:
            loss = loss + torch_cross_entropy(features, memory, sample_bias, labels, SAMPLE_MARGIN)
            for i in range(len(labels)):
                memory[labels[i]] = features[i].data
        return loss.detach(), torch.autograd.grad(loss, trained)

    return run, {}


def dense_torch_with_samples(args: argparse.Namespace) -> tuple[Callable, dict]:
    return dense_torch(args, samples=True)


def matmul(args: argparse.Namespace) -> tuple[Callable, dict]:
    import jax
    import jax.numpy as jnp

    square = jnp.ones((SIDE, SIDE), jnp.dtype(args.dtype))
    product = jax.jit(jnp.matmul)
    return lambda: (product(square, square), None), {}


VARIANTS = {
    "matmul": matmul,
    "dense_torch": dense_torch,
    "dense_jax": dense_jax,
    "streamed": streamed,
    "sampled": sampled,
    "with_samples": with_samples,
    "dense_torch_with_samples": dense_torch_with_samples,
}


def work(args: argparse.Namespace) -> None:
    """Return a variant's process."""
    if args.training_flags:
        xla_flags.set_flags()
    limit = int(args.memory_limit * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    about: dict[str, float] = {}

    def prepare(job: str) -> Callable:
        variant, facts = VARIANTS[args.variant](args)
        about.update(facts)

        def run() -> None:
            value = variant()
            getattr(value[0], "block_until_ready", lambda: None)()
            if args.variant != "matmul":
                about["loss"] = float(value[0])

        return run

    serve(prepare, warm=True, about=about)


def summarize(args: argparse.Namespace, workers: list[Worker]) -> dict:
    """Medians and ratios, by variant; ratios are taken within each turn."""
    by_name = {worker.name: worker for worker in workers}
    plain, streamed = by_name.pop("matmul"), by_name["streamed"]
    settings = {key: str(value) if key == "json" else value for key, value in vars(args).items()}
    square = 2 * SIDE**3 / 1e9  # GFLOP
    report: dict = {"settings": settings, "matmul_gflops": square / plain.median()}
    for name, worker in by_name.items():
        if worker.failed:
            report[name] = {"failed": worker.failed}
            continue
        rate = 1.0 if name != "sampled" else args.sampling_rate
        # Three products; two more for the memory, which has no gradient.
        counted = 10 if name.endswith("with_samples") else 6
        products = rate * counted * args.batch * args.classes * args.dim / 1e9
        facts = {key: worker.values(key) for key in ("block", "working_share_of_tile", "loss")}
        report[name] = {key: values[0] for key, values in facts.items() if values} | {
            "seconds": worker.median(),
            "gflops": products / worker.median(),
            "share_of_matmul": products / square * ratios(worker, plain)["median"],
            "peak_gib": max(worker.values("peak_bytes")) / 2**30,
        }
        if name != "streamed":
            report[name]["times_streamed"] = ratios(streamed, worker)["median"]
    dense, ours = (by_name.get(key) for key in ("dense_torch_with_samples", "with_samples"))
    if dense and ours and not dense.failed:
        report["dense_torch_with_samples"]["times_with_samples"] = ratios(ours, dense)["median"]
    return report


def show(report: dict) -> None:
    print(f"plain {SIDE}^3 product: {report['matmul_gflops']:.0f} GFLOP/s")
    print(
        f"{'':24} {'seconds':>8} {'GFLOP/s':>8} {'of plain':>8} {'peak GiB':>8} {'x streamed':>10}"
    )
    for name in (name for name in VARIANTS if name in report):
        row = report[name]
        if "failed" in row:
            print(f"{name:24} failed within the memory limit: {row['failed'][:90]}")
            continue
        print(
            f"{name:24} {row['seconds']:8.3f} {row['gflops']:8.1f} {row['share_of_matmul']:8.0%}"
            f" {row['peak_gib']:8.2f} {row.get('times_streamed', 1):10.2f}"
        )
    for name in ("streamed", "with_samples"):
        if share := report.get(name, {}).get("working_share_of_tile"):
            print(
                f"{name}: working memory {share:.1%} of one dense [B, C] tile (compiler's account)"
            )
    if times := report.get("dense_torch_with_samples", {}).get("times_with_samples"):
        print(f"dense_torch_with_samples takes {times:.1f} times as long as with_samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--classes", type=int, default=131_072)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the streamed head's products")  # fmt: skip
    parser.add_argument("--block-memory", type=float, help="MiB; the default is config.py's. "
                        "The kernel in C++ has blocks of its own")  # fmt: skip
    parser.add_argument("--sampling-rate", type=float, default=0.1, help="of the sampled variant")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--memory-limit", type=float, default=12.0, help="GiB for each process")
    parser.add_argument("--training-flags", action="store_true",
                        help="compile as the command lines do (xla_flags.py), which favours "
                        "convolutions; otherwise as JAX does by itself. The kernel in C++ is the "
                        "same either way")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="8,192 classes, 3 turns")
    parser.add_argument("--only", help="variants, separated by commas")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        work(args)
        return
    if args.quick:
        args.classes, args.turns = 8192, 3
    wanted = args.only.split(",") if args.only else list(VARIANTS)
    names = [name for name in VARIANTS if name in {*wanted, "matmul", "streamed"}]
    if find_spec("torch") is None:
        names = [name for name in names if not name.startswith("dense_torch")]
        print("PyTorch is not installed: its rows are left out")
    arguments = [f"--{key}={getattr(args, key)}" for key in ("batch", "classes", "dim", "dtype")]
    arguments += [f"--sampling-rate={args.sampling_rate}", f"--memory-limit={args.memory_limit}"]
    if args.training_flags:
        arguments.append("--training-flags")
    if args.block_memory:
        arguments.append(f"--block-memory={args.block_memory}")
    workers = [Worker(__file__, name, arguments) for name in names]
    interleave(workers, args.turns)
    for worker in workers:
        worker.end()
    for worker in workers:
        if worker.failed and worker.name in ("matmul", "streamed"):
            raise SystemExit(f"error: {worker.name}: {worker.failed}")
    report = summarize(args, workers)
    write_json(args.json, report)
    show(report)


if __name__ == "__main__":
    main()

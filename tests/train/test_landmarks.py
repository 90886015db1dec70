"""A network that takes landmarks, trained and evaluated on sets that have them, or have none."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests.helpers.device_steps import DeviceSteps
from uniface_jax import losses, models
from uniface_jax.checkpoints import reading
from uniface_jax.config import base
from uniface_jax.data.conversion.run import write_dataset
from uniface_jax.data.faces.align_folders import REPORT_FILE
from uniface_jax.data.faces.alignment import Face, align, aligned_landmarks
from uniface_jax.data.faces.landmark_tables import LandmarkedSource, LandmarkTable
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError
from uniface_jax.evaluate.features import ComputedFeatures
from uniface_jax.evaluate.sets.image_sets import FileDigests, ImageFiles
from uniface_jax.inference import embedder
from uniface_jax.inference.load import load_model
from uniface_jax.state import create_state
from uniface_jax.train import loop, optim, step
from uniface_jax.train.loop import train_and_evaluate

PEOPLE, IMAGES = 3, 12
SIZES = dict(dim=8, depth=1, heads=2, patch=28, mlp_ratio=2, drop_path=0.0)


def points_of(count):
    moved = np.random.default_rng(0).normal(0, 0.05, (count, 5, 2))
    return (from_pixels(TEMPLATE) + moved).astype(np.float32)


def lines_of(names, points):
    rows = zip(names, points, strict=True)
    return "".join(f"{name},{','.join(map(str, row.ravel()))}\n" for name, row in rows)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A data set with landmarks, one without, and a folder of the same images, PERSON/IMAGE."""
    root = tmp_path_factory.mktemp("landmarks")
    source, points = SyntheticSource(PEOPLE, IMAGES), points_of(IMAGES)
    names = []
    for index in range(IMAGES):
        image, label, _ = source[index]
        names.append(f"p{label}/{index}.jpg")
        (root / "people" / f"p{label}").mkdir(parents=True, exist_ok=True)
        (root / "people" / names[-1]).write_bytes(image)
    table = root / "people" / "landmarks.csv"
    table.write_text(lines_of(names, points))
    plain = FolderSource(root / "people")
    aligned = shutil.copytree(root / "people", root / "aligned")  # as align leaves it
    (aligned / "landmarks.csv").unlink()
    faces = {
        name: {"file": name, "landmarks": (112 * row).tolist()}
        for name, row in zip(names, points, strict=True)
    }
    (aligned / REPORT_FILE).write_text(json.dumps({"faces": faces}))
    write_dataset(plain, root / "plain", name="plain")
    landmarked = LandmarkedSource(plain, LandmarkTable(table))
    write_dataset(landmarked, root / "landmarked", name="landmarked")
    pairs = [(names[i], names[j]) for i, j in np.random.default_rng(1).integers(0, IMAGES, (40, 2))]
    same = [int(a[:2] == b[:2]) for a, b in pairs]
    rows = [f"{a},{b},{is_same}" for (a, b), is_same in zip(pairs, same, strict=True)]
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")
    return root


def config_of(places, data, **changes):
    config = base()
    config.data.train, config.batch_size, config.micro_batches = str(places / data), 16, 1
    config.model.name, config.model.embedding_size = "vit_kprpe_small", 8
    config.model.kprpe.update(SIZES)
    config.steps, config.log.every_steps, config.compilation_cache = 2, 1, ""
    config.eval.data = f"{places / 'pairs.csv'},root={places / 'people'}"
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def trained(places):
    workdir = places / "run"
    values = train_and_evaluate(config_of(places, "landmarked"), workdir)
    assert np.isfinite(values["loss"])
    assert 0 <= values["pairs/auc"] <= 1
    return workdir


@pytest.mark.slow
def test_a_run_embeds_by_each_image_s_landmarks(places, trained, tmp_path):
    model = load_model(trained)
    assert model.takes_landmarks
    people = FolderSource(places / "people")
    images = ImageFiles("people", people.path, [people.item_name(i) for i in range(IMAGES)])
    found = ComputedFeatures(model, tmp_path / "cache", 5, FileDigests()).features(images)
    pixels = np.stack([images.pixels(i) for i in range(IMAGES)])
    landmarks = np.stack([images.landmarks(i) for i in range(IMAGES)])
    names = [f"p{i % PEOPLE}/{i}.jpg" for i in range(IMAGES)]
    by_name = dict(zip(names, points_of(IMAGES), strict=True))
    np.testing.assert_allclose(landmarks, [by_name[name] for name in images.names], atol=1e-6)
    np.testing.assert_allclose(found.values, model.embed(pixels, landmarks), rtol=1e-5, atol=1e-6)
    both = model.embed_apart(pixels, landmarks)
    np.testing.assert_allclose(found.values, both[:, :8] + both[:, 8:], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_resumes_bitwise(places, tmp_path):
    """Landmarks, their mirroring and dropped paths are the same after a restart."""
    changes = {"checkpoint.every_steps": 1, "eval.data": "", "model.kprpe.drop_path": 0.5}
    config = config_of(places, "landmarked", **changes)
    train_and_evaluate(config, tmp_path / "run")
    whole = reading.read(tmp_path / "run")[0]
    assert whole.step == 2
    shutil.rmtree(tmp_path / "run/checkpoints/2")
    train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, reading.read(tmp_path / "run")[0], whole)


def test_training_on_a_set_without_landmarks_is_refused_before_there_is_a_workdir(places, tmp_path):
    with pytest.raises(UserError, match=r"plain: holds no landmarks .*landmarks=template"):
        train_and_evaluate(config_of(places, "plain"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_label_noise_lies_over_the_landmarks_and_once(places, monkeypatch):
    counted, made = loop.with_label_noise, []
    monkeypatch.setattr(
        loop, "with_label_noise", lambda *given: made.append(counted(*given)) or made[-1]
    )
    config = config_of(places, "aligned", **{"data.label_noise": 0.5, "data.balance": "classes"})
    given, _ = loop._open_input(config)
    assert made == [given.trained]
    assert given.trained.source is given.source
    indices = np.arange(IMAGES)
    np.testing.assert_array_equal(given.trained.landmarks(indices), given.source.landmarks(indices))
    assert (given.trained.classes(indices) != given.source.classes(indices)).any()


@pytest.mark.slow
def test_sets_without_landmarks_are_one_line_or_the_template_s(places, trained, tmp_path):
    template = load_model(trained, landmarks="template")
    assert not template.takes_landmarks
    assert template.description.endswith("landmarks: template")
    assert load_model(trained).description.endswith("landmarks: data")
    images = np.stack([np.full((112, 112, 3), 40 * i, np.uint8) for i in range(3)])
    everywhere = np.broadcast_to(from_pixels(TEMPLATE), (3, 5, 2))
    given = load_model(trained).embed(images, everywhere)
    np.testing.assert_allclose(template.embed(images), given, rtol=1e-4, atol=1e-6)
    people = ImageFiles("bare", places, [f"people/p0/{i}.jpg" for i in (0, 3)])
    with pytest.raises(UserError, match=r"people/p0/0.jpg: no landmarks.*landmarks=template"):
        ComputedFeatures(load_model(trained), tmp_path, 5, FileDigests()).features(people)
    with pytest.raises(UserError, match=r"run: its network takes landmarks; Embedder\(…, align"):
        embedder.Embedder(trained)
    assert embedder.Embedder(trained, landmarks="template").embed(list(images)).shape == (3, 8)


@pytest.mark.slow
def test_an_embedder_that_aligns_passes_the_landmarks_that_it_found(trained, monkeypatch):
    photograph = np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8)
    found = Face(np.zeros(4), 1.5 * TEMPLATE + np.arange(10).reshape(5, 2) + 40, 0.9)

    class Detector:
        def __init__(self, *_):
            pass

        def detect(self, image):
            return [found]

    monkeypatch.setattr(embedder, "FaceDetector", Detector)
    features = embedder.Embedder(trained, align=True).embed([photograph])
    face, points = align(photograph, found.landmarks), aligned_landmarks(found.landmarks)
    expected = load_model(trained).embed(face[None], points[None])
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    elsewhere = load_model(trained).embed(face[None], points[None] + np.float32(0.3))
    assert np.abs(elsewhere - expected).max() > 0


@pytest.mark.slow
def test_a_network_of_the_template_trains_on_any_set(places, tmp_path):
    config = config_of(places, "plain", **{"model.kprpe.landmarks": "template", "steps": 1})
    assert np.isfinite(train_and_evaluate(config, tmp_path / "run")["loss"])
    assert not load_model(tmp_path / "run").takes_landmarks
    with pytest.raises(UserError, match="landmarks=other: expected one of data, template"):
        load_model(tmp_path / "run", landmarks="other")


@pytest.mark.slow
def test_a_step_is_the_same_on_several_devices():
    network, loss = (
        models.create("vit_kprpe_small", embedding_size=8, **SIZES),
        losses.create("uce"),
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 112, 112, 3), dtype=np.uint8),
        "label": rng.integers(0, 5, 8).astype(np.int32),
        "landmarks": points_of(8),
    }
    first = jax.device_get(create_state(network, loss, 5, 1.0, 0))
    settings = step.Settings(num_classes=5, micro_batches=4, sgd=optim.Sgd())
    steps = DeviceSteps((network, loss), settings, first, 0.1, "shard_map")
    one, four = (steps.run(devices, [batch])[0] for devices in (1, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, four)
    moved = one.weights.network["keypoint_linear"]["kernel"]
    assert np.abs(moved).max() > 0


@pytest.mark.slow
def test_a_graph_has_the_template_s_landmarks_or_is_refused(trained, run_cli, tmp_path):
    command = f"--workdir={trained}", f"--output={tmp_path / 'model.onnx'}"
    refused = run_cli("export", *command)
    assert refused.returncode == 2
    assert "run: its network takes landmarks, and --format=onnx has images alone" in refused.stderr
    done = run_cli("export", *command, "--landmarks=template")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "model.onnx.card.json").read_text())
    assert card["input"]["landmarks"].endswith("baked in")
    images = np.stack([np.full((112, 112, 3), 40 * i, np.uint8) for i in range(3)])
    expected = load_model(trained, landmarks="template").embed(images)
    np.testing.assert_allclose(load_model(tmp_path / "model.onnx").embed(images), expected, 1e-3)

"""What is looked at before the first step."""

import numpy as np
import pytest

from tests.helpers.demo_run import make_data
from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.opening import open_source
from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.errors import UserError
from uniface_jax.runtime.chips import Chip
from uniface_jax.train import input_checks
from uniface_jax.train.from_config import make_recipe


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    return folder


def copied(people, tmp_path):
    import shutil

    return shutil.copytree(people / "people", tmp_path / "people")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encode_png(np.zeros((250, 240, 3), np.uint8)), r"\(p3/5.png\): 240x250 pixels, expected"),
        (encode_png(np.zeros((112, 112, 3), np.uint8))[:-20], r"\(p3/5.png\): the image is trunc"),
        (b"<html>", r"\(p3/5.png\): not an image"),
    ],
)
def test_an_image_that_cannot_be_used_is_found_and_named(content, words, people, tmp_path):
    folder = copied(people, tmp_path)
    assert input_checks.check_images(FolderSource(folder), skip=False) == []
    (folder / "p3" / "5.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"record 29 {words}.*data.on_error=skip"):
        input_checks.check_images(FolderSource(folder), skip=False)
    (warning,) = input_checks.check_images(FolderSource(folder), skip=True)
    assert "1 of 40 images that were looked at cannot be used" in warning
    assert "p3/5.png" in warning


def test_looking_ends_in_time_and_spares_sets_that_were_checked(people):
    class Slow(FolderSource):
        seen = 0

        def __getitem__(self, index):
            type(self).seen += 1
            return super().__getitem__(index)

    assert input_checks.check_images(Slow(people / "people"), skip=False, seconds=0) == []
    assert Slow.seen == 0
    assert input_checks.check_images(Slow(people / "people"), skip=False) == []
    assert Slow.seen == 40  # each once
    assert open_source(people / "train").image_shape == (112, 112, 3)


def recipe(classes, images=1000, **keys):
    config = configs.base()
    config.model.width, config.model.embedding_size = 4, 8
    config.steps = 100
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return make_recipe(config, images, classes), SyntheticSource(classes, images)


def test_one_class_is_refused():
    with pytest.raises(UserError, match=r"synthetic:1:1000: 1 class, so that there are no neg"):
        input_checks.warnings_of(*recipe(1), 1)


def test_no_negatives_beyond_the_batch_are_warned_of():
    assert input_checks.warnings_of(*recipe(1000, head__sampling_rate=0.9), 2) == []
    (warning,) = input_checks.warnings_of(*recipe(1000, head__sampling_rate=0.1), 2)
    assert "sampling_rate=0.1: 100 of 1000 classes a step, of which a batch of 512" in warning
    assert "holds about 401" in warning


def test_a_warm_up_that_never_ends_and_a_trace_that_never_begins_are_said():
    (warning,) = input_checks.warnings_of(
        *recipe(10, optim__schedule="cosine", optim__warmup_epochs=80.0), 1
    )
    assert "config.optim.warmup_epochs=80: the run ends before, at step 100" in warning
    (warning,) = input_checks.warnings_of(
        *recipe(10, optim__schedule="constant", optim__warmup_steps=100), 1
    )
    assert "config.optim.warmup_steps=100: the run ends before, at step 100" in warning
    with pytest.raises(UserError, match=r"config.profile=100:110: the run ends at step 100"):
        input_checks.warnings_of(*recipe(10, profile="100:110"), 1)
    assert input_checks.warnings_of(*recipe(10, profile="99:110"), 1) == []


def test_notes_of_a_source_are_shown_but_not_all():
    made, source = recipe(10)
    source.notes = [f"note {number}" for number in range(8)]
    found = input_checks.warnings_of(made, source, 1)
    assert found[:5] == source.notes[:5]
    assert found[5:] == ["synthetic:10:1000: 3 further notes of this kind"]


def test_another_set_is_told_from_the_one_before():
    made, _ = recipe(10)
    same = {"num_examples": 1000, "num_classes": 10}
    assert input_checks.changed(same, made, "faces") == ""
    found = input_checks.changed({**same, "num_examples": 1001}, made, "faces")
    assert found == "faces: num_examples is 1000, but the run was trained on 1001"
    with pytest.raises(UserError, match=r"num_classes is 10, but .* 11; .*config.finetune"):
        input_checks.changed({**same, "num_classes": 11}, made, "faces")


def test_kernels_of_another_platform():
    network = models.create("vit_t", attention="pallas")
    input_checks.check_platform(network, "tpu")
    input_checks.check_platform(models.create("mbf"), "cpu")
    with pytest.raises(
        UserError, match=r"attention=pallas: runs on a TPU alone, and this is a CPU"
    ):
        input_checks.check_platform(network, "cpu")


def test_products_that_a_device_would_widen_are_said():
    config = configs.base()
    config.model.name, config.model.vit.product_dtype = "vit_t", "int8"
    config.head.product_dtype = "float8_e4m3fn"
    config.model.kprpe.product_dtype = "int8"  # of another family
    a100, h100, cpu = Chip("gpu", (8, 0)), Chip("gpu", (9, 0)), Chip("cpu", (0, 0))
    (line,) = input_checks.widened_products(config, a100, "an A100")
    assert line.startswith("config.head.product_dtype=float8_e4m3fn: an A100 has no products of")
    assert input_checks.widened_products(config, h100, "an H100") == []
    assert input_checks.widened_products(config, None, "what does not tell") == []
    assert len(input_checks.widened_products(config, cpu, "a CPU")) == 2
    assert input_checks.widened_products(configs.base(), cpu, "a CPU") == []

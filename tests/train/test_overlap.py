import json

import cv2
import numpy as np
import pytest

from uniface_jax.config import base
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.overlap_list import Overlap, set_digest, write_overlaps
from uniface_jax.errors import UserError
from uniface_jax.train import loop
from uniface_jax.train.overlap import overlap_warnings


class Pairs:
    def __init__(self, images):
        self.images = images


def test_training_says_where_it_validates_on_what_it_trains_on(tmp_path):
    train = str(tmp_path / "train")
    digest = set_digest([b"x", b"y"])
    one = {"name": "lfw", "digest": digest, "images": 2, "same_images": 0, "people": 7}
    content = {"format": "uniface_jax.overlap/1", "images": 48, "sets": [one]}
    sets = {"any_name": Pairs([b"y", b"x"]), "other": Pairs([b"z"])}
    assert overlap_warnings(train, 48, sets) == []
    file = tmp_path / "train.overlap.json"
    file.write_text(json.dumps(content))
    (line,) = overlap_warnings(train, 48, sets)
    assert line.startswith("any_name: 7 people")
    assert "48 images" not in line
    assert "a state of it with 48 images" in overlap_warnings(train, 50, sets)[0]
    for damaged in ({**content, "format": "x"}, {**content, "sets": [{**one, "people": "7"}]}, [1]):
        file.write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="remove it"):
            overlap_warnings(train, 48, sets)


def test_a_run_warns_before_it_begins(tmp_path, monkeypatch):
    images = [
        cv2.imencode(".png", np.full((112, 112, 3), gray, np.uint8))[1].tobytes()
        for gray in range(12)
    ]
    for number, image in enumerate(images):
        file = tmp_path / "train" / f"p{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
    numbers = np.arange(12)
    write_pairs(tmp_path / "val.bin", images, numbers, numbers[::-1], numbers % 2 == 0)
    overlap = Overlap("lfw", set_digest(images), 12, 12, 2)
    write_overlaps(tmp_path / "train.overlap.json", 12, [overlap])
    config = base()
    config.data.train, config.eval.data = str(tmp_path / "train"), str(tmp_path / "val.bin")
    config.batch_size = 64
    warned: list[str] = []
    monkeypatch.setattr(loop, "warn", warned.append)
    monkeypatch.setattr(loop, "_train", lambda *arguments: {})
    loop.train_and_evaluate(config, tmp_path / "run")
    assert any("2 people of the training set" in line for line in warned), warned

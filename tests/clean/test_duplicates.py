import cv2
import numpy as np
import pytest

from uniface_jax.clean.duplicates import (
    SAME_PHOTOGRAPH,
    exact_originals,
    nearest_pairs,
    photograph_likeness,
    same_photographs,
)
from uniface_jax.evaluate.all_pairs.above import PairsFound


def texture(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), np.uint8)
    return cv2.resize(noise, (112, 112), interpolation=cv2.INTER_CUBIC)


def test_exact_originals_are_the_first_of_their_hash():
    hashes = np.random.default_rng(0).integers(0, 3, (40, 2)).astype(np.uint8)
    wanted = [next(j for j in range(40) if (hashes[j] == hashes[i]).all()) for i in range(40)]
    assert exact_originals(hashes).tolist() == wanted


@pytest.mark.parametrize("buffered", [0, 1 << 22])
def test_pairs_of_either_images_nearest_are_kept(monkeypatch, buffered):
    monkeypatch.setattr("uniface_jax.clean.duplicates._BUFFERED_PAIRS", buffered)
    rng = np.random.default_rng(1)
    first, second = np.triu_indices(12, 1)
    scores = rng.permutation(len(first)).astype(np.float32)
    score_of = {(i, j): s for i, j, s in zip(first, second, scores, strict=True)}

    def nearest(image):
        mine = [pair for pair in score_of if image in pair]
        return sorted(mine, key=lambda pair: -score_of[pair])[:2]

    wanted = {pair for image in range(12) for pair in nearest(image)}
    order = rng.permutation(len(first))
    parts = [PairsFound(first[p], second[p], scores[p]) for p in np.array_split(order, 9)]
    found = nearest_pairs(iter(parts), 12)
    assert list(zip(found.first, found.second, strict=True)) == sorted(wanted)


def test_no_pairs_are_no_pairs():
    assert len(nearest_pairs(iter([]), 5).scores) == 0


def test_a_crop_in_other_light_is_one_photograph_and_another_one_is_not():
    image = texture(0)
    crop = cv2.resize(image[4:106, 6:112], (112, 112))
    darker = np.clip(crop * 0.8 + 10, 0, 255).astype(np.uint8)
    assert photograph_likeness(image, darker) > SAME_PHOTOGRAPH
    assert photograph_likeness(image, texture(1)) < 0.6
    flat = np.full((112, 112, 3), 7, np.uint8)
    assert photograph_likeness(flat, flat) == 0


def test_pairs_of_one_photograph_stay():
    images = [texture(0), texture(1), np.clip(texture(0) * 0.9, 0, 255).astype(np.uint8)]
    ticks = []
    pairs = PairsFound(np.array([0, 0]), np.array([1, 2]), np.array([0.9, 0.9], np.float32))
    found = same_photographs(pairs, images.__getitem__, tick=ticks.append)
    assert (found.first.tolist(), found.second.tolist(), sum(ticks)) == ([0], [2], 2)
    assert found.scores[0] > SAME_PHOTOGRAPH

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from uniface_jax.data.formats.tf_example import (
    AFTER_IMAGE_BYTES,
    Example,
    around,
    landmarks_behind,
    parse,
    parse_landmarks,
)


def serialise(image, label, name, landmarks=None):
    before, after = around(len(image), label, name, landmarks)
    return before + image + after


def of_tensorflow(image, label, name, landmarks=None):
    import tensorflow as tf

    def of_bytes(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    feature = {
        "image": of_bytes(image),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "name": of_bytes(name),
    }
    if landmarks is not None:
        numbers = tf.train.FloatList(value=landmarks.ravel())
        feature["landmarks"] = tf.train.Feature(float_list=numbers)
    message = tf.train.Example(features=tf.train.Features(feature=feature))
    return message.SerializeToString(deterministic=True)


SIZES = st.sampled_from([0, 1, 99, 100, 101, 111, 120, 126, 127, 128, 129, 16_370, 16_384, 70_000])


@examples(200)
@given(SIZES, st.integers(0, 2**63 - 1) | st.integers(0, 300), SIZES)
@example(0, 0, 0)
def test_the_same_bytes_as_tensorflow(size, label, length):
    image, name = bytes(size), b"n" * length
    written = serialise(image, label, name)
    assert written == of_tensorflow(image, label, name)
    assert parse(written) == Example(image, label, name)


@examples(40)
@given(SIZES, st.integers(0, 2**63 - 1) | st.integers(0, 300), SIZES)
def test_landmarks_stand_between_label_and_name_as_tensorflow_sorts_them(size, label, length):
    image, name = bytes(size), b"n" * length
    points = np.random.default_rng(size).random((5, 2), np.float32)
    written = serialise(image, label, name, points)
    assert written == of_tensorflow(image, label, name, points)
    assert parse(written) == Example(image, label, name)
    np.testing.assert_array_equal(parse_landmarks(written), points)
    behind = around(size, label, name, points)[1]
    np.testing.assert_array_equal(landmarks_behind(behind[:AFTER_IMAGE_BYTES]), points)
    assert parse_landmarks(serialise(image, label, name)) is None
    assert landmarks_behind(serialise(image, label, name)[-60:]) is None


def test_landmarks_of_other_writers():
    def example(values):
        feature = b"\x12" + bytes([len(values)]) + values
        value = b"\x0a\x09landmarks\x12" + bytes([len(feature)]) + feature
        entry = b"\x0a" + bytes([len(value)]) + value
        return b"\x0a" + bytes([len(entry)]) + entry

    points = np.arange(10, dtype="<f4")
    one_by_one = b"".join(b"\x0d" + number.tobytes() for number in points)
    np.testing.assert_array_equal(parse_landmarks(example(one_by_one)).ravel(), points)
    for values in (b"", one_by_one[:-5], b"\x08\x01", b"\x0a\x30" + bytes(4), b"\x0d\x00"):
        with pytest.raises(ValueError):
            parse_landmarks(example(values))


def test_other_writers_are_understood():
    image = b"\x0a\x0a\x0a\x04\x0a\x02\x0a\x00"  # a list of values that are messages themselves
    label = b"\x0a\x0b\x0a\x05label\x12\x02"
    negative = (1 << 64) - 3
    encoded = bytearray()
    while negative >= 0x80:
        encoded.append(negative & 0x7F | 0x80)
        negative >>= 7
    encoded.append(negative)

    def entry(key, feature):
        value = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(feature)]) + feature
        return b"\x0a" + bytes([len(value)]) + value

    unpacked = b"\x1a" + bytes([1 + len(encoded)]) + b"\x08" + bytes(encoded)
    inside = entry(b"other", b"\x12\x06\x0a\x04abcd") + entry(b"label", unpacked)
    inside += entry(b"image", b"\x0a\x02\x0a\x00") + entry(b"image", b"\x0a\x05\x0a\x03xyz")
    unknown = b"\x10\x07" + b"\x1d\0\0\0\0" + b"\x21" + bytes(8)  # fields that we do not know
    assert parse(unknown + b"\x0a" + bytes([len(inside)]) + inside) == (b"xyz", -3, None)
    with pytest.raises(ValueError, match="not an example"):
        parse(b"")
    with pytest.raises(ValueError):
        parse(image + label)


@examples(300)
@given(st.data())
def test_damage_raises_nothing_but_value_errors(data):
    points = data.draw(st.sampled_from([None, np.zeros((5, 2), np.float32)]))
    content = bytearray(serialise(b"image", 7, b"name", points))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        found = parse(bytes(content[:cut]))
        assert isinstance(found.image, bytes)
        assert isinstance(found.label, int)
        landmarks_behind(bytes(content[:cut]))
        parse_landmarks(bytes(content[:cut]))
    except ValueError:
        pass

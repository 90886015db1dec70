"""tf.train.Example of one training image, written and parsed without TensorFlow.

An Example is protobuf: a message `features` (1) of map entries `feature` (1), each a `key` (1) and
a `value` (2) that holds a bytes_list (1), a float_list (2) or an int64_list (3), each with `value`
(1). The writer
gives the bytes of TensorFlow's deterministic serialization; the parser takes whatever order and
packing a writer chose, and skips the features that it does not know.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3

Span = tuple[int, int]  # begin and end of a field's content


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SHORT_VARINTS = [
    _encode_varint(value) for value in range(1 << 14)
]  # looked up: a conversion needs many


@lru_cache(1 << 16)
def _head(size: int) -> bytes:
    """Return the bytes before an image of `size` bytes, without the Example's tag and length."""
    # Lengths from the inside out: of the value, in a list, in a feature, in a map entry.
    value = _varint(size)
    in_list = 1 + len(value) + size
    list_size = _varint(in_list)
    in_feature = 1 + len(list_size) + in_list
    feature_size = _varint(in_feature)
    in_entry = 8 + len(feature_size) + in_feature  # with the key and its tag
    return b"".join(
        (
            b"\x0a",
            _varint(in_entry),
            b"\x0a\x05image\x12",
            feature_size,
            b"\x0a",
            list_size,
            b"\x0a",
            value,
        )
    )


# The bytes before a label of so many bytes (10 at most) and before a name of so many, where all
# lengths around them are of one byte.
_LABEL_HEADS = [
    b"\x0a%c\x0a\x05label\x12%c\x1a%c\x0a%c" % (13 + n, 4 + n, 2 + n, n) for n in range(11)
]
_NAME_HEADS = [
    b"\x0a%c\x0a\x04name\x12%c\x0a%c\x0a%c" % (12 + n, 4 + n, 2 + n, n) for n in range(100)
]
# The bytes before the ten float32 of five landmarks.
_LANDMARKS_HEAD = b"\x0a\x39\x0a\x09landmarks\x12\x2c\x12\x2a\x0a\x28"
_LANDMARKS_BYTES = 40
AFTER_IMAGE_BYTES = len(_LABEL_HEADS[10]) + 10 + len(_LANDMARKS_HEAD) + _LANDMARKS_BYTES
_ANY_VARINT = rb"[\x80-\xff]*[\x00-\x7f]"
_ANY_HEAD = re.compile(
    rb"\x0a(?:V)\x0a(?:V)\x0a\x05image\x12(?:V)\x0a(?:V)\x0a([\x80-\xff]{0,4}[\x00-\x7f])".replace(
        b"V", _ANY_VARINT
    )
)


class Example(NamedTuple):
    """A record's content: encoded bytes, class number, name or None where it has none."""

    image: bytes
    label: int
    name: bytes | None


def around(
    size: int, label: int, name: bytes, landmarks: np.ndarray | None = None
) -> tuple[bytes, bytes]:
    """Return the bytes of an Example before and after its image, of `size` bytes.

    Its features are `image`, `label` (0..2^63-1), `name` and, where they are given, `landmarks`,
    float32 [5, 2].

    Example:
        >>> before, after = around(len(b"pixels"), label=7, name=b"ann/1.jpg")
        >>> parse(before + b"pixels" + after)
        Example(image=b'pixels', label=7, name=b'ann/1.jpg')
    """
    head, number = _head(size), _varint(label)
    tail = _LABEL_HEADS[len(number)] + number
    if landmarks is not None:
        tail += _LANDMARKS_HEAD + landmarks.astype("<f4").tobytes()
    if len(name) < len(_NAME_HEADS):
        tail += _NAME_HEADS[len(name)] + name
    else:
        text = _field(b"\x0a", _field(b"\x0a", name))
        tail += _field(b"\x0a", b"\x0a\x04name" + _field(b"\x12", text))
    return b"".join((b"\x0a", _varint(len(head) + size + len(tail)), head)), tail


def parse(serialized: bytes) -> Example:
    """Return the image, the label and the name of a serialized Example.

    Of a key that comes twice the last counts, as in protobuf.

    Raises:
        ValueError: `serialized` is no Example, or has no image (a value of bytes) or no label (an
            integer).
    """
    if (own := _parse_own(serialized)) is not None:
        return own
    image, label, name = _features(serialized)
    if image is None or label is None:
        raise ValueError("not an example of an image and a label")
    return Example(image, label, name)


def parse_image(serialized: bytes) -> bytes:
    """Return the image of a serialized Example that need have no label, as TFace's; see parse."""
    image = _features(serialized)[0]
    if image is None:
        raise ValueError("not an example of an image")
    return image


def _features(serialized: bytes) -> tuple[bytes | None, int | None, bytes | None]:
    """Return the image, the label and the name of a serialized Example, None of those not there."""
    image = label = name = None
    for begin, end in _messages(serialized, (0, len(serialized)), 1):
        for entry in _messages(serialized, (begin, end), 1):
            key = value = (0, 0)
            for number, content in _fields(serialized, entry):
                if isinstance(content, tuple):
                    key = content if number == 1 else key
                    value = content if number == 2 else value
            named = serialized[key[0] : min(key[1], key[0] + 6)]
            if named == b"image":
                image = _bytes_value(serialized, value)
            elif named == b"label":
                label = _integer_value(serialized, value)
            elif named == b"name":
                name = _bytes_value(serialized, value)
    return image, label, name


def parse_landmarks(serialized: bytes) -> np.ndarray | None:
    """Return the landmarks of a serialized Example, float32 [5, 2]; None where it has none.

    Raises:
        ValueError: `serialized` is no Example, or its landmarks are not ten float32.

    Example:
        >>> before, after = around(0, 7, b"", np.full((5, 2), 0.5))
        >>> parse_landmarks(before + after).tolist()[0]
        [0.5, 0.5]
    """
    numbers: list[bytes] | None = None
    for begin, end in _messages(serialized, (0, len(serialized)), 1):
        for entry in _messages(serialized, (begin, end), 1):
            key = value = (0, 0)
            for number, content in _fields(serialized, entry):
                if isinstance(content, tuple):
                    key = content if number == 1 else key
                    value = content if number == 2 else value
            if serialized[key[0] : min(key[1], key[0] + 10)] == b"landmarks":
                numbers = _float_values(serialized, value)
    if numbers is None:
        return None
    joined = b"".join(numbers)
    if len(joined) != _LANDMARKS_BYTES:
        raise ValueError(f"landmarks of {len(joined)} bytes, expected ten float32")
    points: np.ndarray = np.frombuffer(joined, "<f4").reshape(5, 2)
    return points


def landmarks_behind(after: bytes) -> np.ndarray | None:
    """Return the landmarks of an Example that `around` gave, by the bytes behind its image.

    after: the first AFTER_IMAGE_BYTES of them, or more. None where they have another form; then
    parse_landmarks of the whole tells.
    """
    width = after[1] - 13 if len(after) > 1 else 0
    if not 1 <= width < len(_LABEL_HEADS) or not after.startswith(_LABEL_HEADS[width]):
        return None
    place = len(_LABEL_HEADS[width]) + width
    begin = place + len(_LANDMARKS_HEAD)
    if not after.startswith(_LANDMARKS_HEAD, place) or len(after) < begin + _LANDMARKS_BYTES:
        return None
    return np.frombuffer(after, "<f4", 10, begin).reshape(5, 2)


def _parse_own(data: bytes) -> Example | None:
    """Parse what `around` gives, in a tenth of the time for any order; None for anything else.

    Every byte around image, label, landmarks and name is compared with what the writer puts there.
    """
    match = _ANY_HEAD.match(data)
    if match is None:
        return None
    begin = match.end()
    size, _ = _read_varint(data, match.start(1), begin)
    end, head = begin + size, _head(size)
    if len(data) < end + 2 or data[:begin] != b"".join(
        (b"\x0a", _varint(len(data) - begin + len(head)), head)
    ):
        return None
    width = data[end + 1] - 13
    if not 1 <= width < len(_LABEL_HEADS) or not data.startswith(_LABEL_HEADS[width], end):
        return None
    number = end + len(_LABEL_HEADS[width])
    name = landmarks = number + width
    if data.startswith(_LANDMARKS_HEAD, landmarks):
        name += len(_LANDMARKS_HEAD) + _LANDMARKS_BYTES
    if len(data) < name + 2 or data[landmarks - 1] >= 0x80:
        return None
    label, label_end = _read_varint(data, number, landmarks)
    length = data[name + 1] - 12
    if label_end != landmarks or label >> 63 or not 0 <= length < len(_NAME_HEADS):
        return None
    text = name + len(_NAME_HEADS[length])
    if not data.startswith(_NAME_HEADS[length], name) or len(data) != text + length:
        return None
    return Example(data[begin:end], label, data[text:])


def _varint(value: int) -> bytes:
    return _SHORT_VARINTS[value] if value < len(_SHORT_VARINTS) else _encode_varint(value)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _read_varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Return the varint at `place` as uint64, and where it ends."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
        shift += 7
    raise ValueError("a number without its end")


def _fields(data: bytes, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield (field number, value) of a message: a varint's int, else begin and end of its bytes."""
    place, end = span
    while place < end:
        tag, place = _read_varint(data, place, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, place = _read_varint(data, place, end)
            yield number, value
            continue
        if wire == _LENGTH:
            length, place = _read_varint(data, place, end)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ValueError(f"a field of wire type {wire}")
        if length > end - place:
            raise ValueError("a field longer than what holds it")
        yield number, (place, place + length)
        place += length


def _messages(data: bytes, span: Span, number: int) -> Iterator[Span]:
    """Yield begin and end of the fields `number` of a message."""
    for found, content in _fields(data, span):
        if found == number and isinstance(content, tuple):
            yield content


def _bytes_value(data: bytes, feature: Span) -> bytes | None:
    """Return the first value of a feature's bytes_list; None where it has none."""
    for values in _messages(data, feature, _BYTES_LIST):
        for begin, end in _messages(data, values, 1):
            return data[begin:end]
    return None


def _float_values(data: bytes, feature: Span) -> list[bytes]:
    """Return the bytes of the numbers in a feature's float_list, packed or not."""
    found = []
    for values in _messages(data, feature, _FLOAT_LIST):
        place, end = values
        while place < end:
            tag, place = _read_varint(data, place, end)
            if tag != 1 << 3 | _LENGTH and tag != 1 << 3 | _FIXED32:
                raise ValueError(f"a list of floats with the tag {tag}")
            length = 4
            if tag & 7 == _LENGTH:
                length, place = _read_varint(data, place, end)
            if length > end - place:
                raise ValueError("a field longer than what holds it")
            found.append(data[place : place + length])
            place += length
    return found


def _integer_value(data: bytes, feature: Span) -> int | None:
    """Return the first value of a feature's int64_list, packed or not; None where it has none."""
    for values in _messages(data, feature, _INT64_LIST):
        for number, content in _fields(data, values):
            if number == 1:
                value = (
                    content
                    if isinstance(content, int)
                    else _read_varint(data, content[0], content[1])[0]
                )
                return value - (1 << 64) if value >> 63 else value
    return None

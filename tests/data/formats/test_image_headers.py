import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.examples import examples
from uniface_jax.data.formats import image_headers, images
from uniface_jax.errors import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (24, 40, 3), np.uint8)


def encoded(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


WHOLE = {
    "baseline": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "grey": encoded("JPEG", mode="L"),
    "cmyk": encoded("JPEG", mode="CMYK"),
    "restarts": encoded("JPEG", restart_marker_blocks=1),
    "comment": encoded("JPEG", comment=b"\xff\xd9 is no end in here"),
    "thumbnail": encoded("JPEG", exif=b"Exif\0\0" + encoded("JPEG")),
    "png": encoded("PNG"),
    "palette": encoded("PNG", mode="P"),
    "transparent": encoded("PNG", mode="RGBA"),
    "webp": encoded("WEBP"),
    "bmp": encoded("BMP"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_as_the_decoder_sees_it(name):
    assert image_headers.inspect(WHOLE[name], "x") == images.check(WHOLE[name], "x")


def test_what_may_follow_or_fill():
    jpeg = WHOLE["baseline"]
    filled = jpeg[:2] + b"\xff\xff" + jpeg[2:]
    for content in (jpeg + bytes(500), jpeg + b"trailer", filled):
        assert image_headers.inspect(content, "x") == ("JPEG", 24, 40)
    assert image_headers.inspect(WHOLE["png"] + b"trailer", "x") == ("PNG", 24, 40)


@pytest.mark.parametrize("name", ["baseline", "progressive", "restarts", "thumbnail", "png"])
def test_every_truncation_is_seen(name):
    whole = WHOLE[name]
    for length in range(len(whole)):
        with pytest.raises(UserError, match=r"^here: "):
            image_headers.inspect(whole[:length], "here")


def test_every_flipped_bit_of_a_png_is_seen():
    whole = WHOLE["png"]
    for place in range(8, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        with pytest.raises(UserError):
            image_headers.inspect(bytes(damaged), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"<html>", "not an image"),
        (bytes(5000), "not an image"),
        (b"\xff\xd8\xff\xd9", "truncated"),
        (b"\xff\xd8\xff\xe0\0\1", "a segment of 1 bytes"),
        (b"\xff\xd8\xff\xda\0\x08" + bytes(9) + b"\xff\xd9", "no size before the pixels"),
        (
            WHOLE["baseline"].replace(b"\xff\xc0\0\x11\x08\0\x18", b"\xff\xc0\0\x11\x08\0\0"),
            "40x0 p",
        ),
        (WHOLE["baseline"].replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "of 12 bits"),
        (
            WHOLE["baseline"].replace(b"\x08\0\x18\0\x28", b"\x08\xff\xff\xff\xff"),
            "65535x65535 pixels",
        ),
    ],
)
def test_what_is_wrong_is_said(content, message):
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        image_headers.inspect(content, "here")


@examples(300)
@given(st.data())
def test_damage_raises_nothing_but_user_errors(data):
    content = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    message = "here: none"
    try:
        kind, height, width = image_headers.inspect(bytes(content), "here")
        assert kind in images.FORMATS
        assert 0 < height * width <= images.MAX_PIXELS
    except UserError as e:
        message = str(e)
    assert message.startswith("here: ")
    assert "\n" not in message

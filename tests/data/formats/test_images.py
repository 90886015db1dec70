import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.examples import examples
from uniface_jax.data.formats import images
from uniface_jax.errors import UserError

RANDOM = np.random.RandomState(0)
COLOUR = RANDOM.randint(0, 256, (9, 7, 3), np.uint8)
SMOOTH = np.kron(RANDOM.randint(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM"])
def test_lossless_formats_give_the_pixels_back(kind):
    assert (images.decode(encoded(Image.fromarray(COLOUR), kind), "a") == COLOUR).all()


def test_own_encoders_round_trip():
    assert (images.decode(images.encode_png(COLOUR), "a") == COLOUR).all()
    difference = images.decode(images.encode_jpeg(SMOOTH), "a").astype(int) - SMOOTH
    assert np.abs(difference).mean() < 6


def test_grey_becomes_three_equal_channels():
    grey = COLOUR[..., 0]
    decoded = images.decode(encoded(Image.fromarray(grey), "PPM"), "a.pgm")
    assert (decoded == grey[..., None]).all()
    assert decoded.shape == (9, 7, 3)


def test_exif_orientation_only_on_request():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    photo = encoded(Image.fromarray(COLOUR), "PNG", exif=exif)
    assert images.decode(photo, "a").shape == (9, 7, 3)
    assert (images.decode(photo, "a", upright=True) == np.rot90(COLOUR, -1)).all()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50)])
def test_what_is_no_image_is_named(content):
    with pytest.raises(UserError, match=r"s1/3\.jpg: not an image"):
        images.decode(content, "s1/3.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP"])
def test_truncated_images_are_named(kind):
    whole = encoded(Image.fromarray(SMOOTH), kind)
    with pytest.raises(UserError, match="s1/3: "):
        images.check(whole[: len(whole) * 2 // 3], "s1/3")


def test_size_is_checked_before_pixels_are_decoded():
    header = b"P5 9000 9000 255\n"
    with pytest.raises(UserError, match="huge: 9000x9000 pixels; at most"):
        images.decode(header, "huge")


def test_sixteen_bit_pixels_are_refused():
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    with pytest.raises(UserError, match="deep: pixels of mode"):
        images.decode(encoded(deep, "PNG"), "deep")


WHOLE = [images.encode_png(COLOUR), images.encode_jpeg(SMOOTH)]


@examples(100)
@given(st.sampled_from(WHOLE), st.data())
def test_damage_raises_nothing_but_user_errors(whole, data):
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    message = "x: none"
    try:
        assert images.decode(bytes(damaged), "x").ndim == 3
    except UserError as e:
        message = str(e)
    assert message.startswith("x: ")
    assert "\n" not in message

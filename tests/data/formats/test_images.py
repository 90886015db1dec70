import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.helpers.examples import examples
from tests.helpers.jpegs import progressive_jpeg
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


def test_exif_orientation_is_followed():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    photo = encoded(Image.fromarray(COLOUR), "PNG", exif=exif)
    assert images.decode(photo, "a").shape == (7, 9, 3)
    assert (images.decode(photo, "a") == np.rot90(COLOUR, -1)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_is_found_in_the_header(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    photo = Image.fromarray(COLOUR)
    plain, turned = encoded(photo, kind), encoded(photo, kind, exif=exif)
    assert (images.orientation(plain), images.orientation(turned)) == (1, turn)
    assert images.orientation(memoryview(turned)) == turn
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(turned))).convert("RGB"))
    assert (images.decode(turned, "a") == upright).all()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>".replace(b"'", b'"')
    if kind == "JPEG":
        marked = plain[:2] + b"\xff\xff\xe1" + (2 + len(xmp)).to_bytes(2, "big") + xmp + plain[2:]
        assert images.orientation(marked) == 6


@examples(200)
@given(st.binary(max_size=40), st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b""]))
def test_an_orientation_of_noise_is_upright(content, head):
    assert images.orientation(head + content) == 1


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


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded():
    """Each scan of 16 bytes costs a pass over all pixels: 16 MB of them would take an hour."""
    whole, bomb = progressive_jpeg(), progressive_jpeg(more_scans=images.MAX_SCANS)
    for read in (images.decode, images.check, images.header):
        with pytest.raises(UserError, match=r"^bomb: a JPEG of more than 100 scans$"):
            read(bomb, "bomb")
    allowed = progressive_jpeg(more_scans=20)
    np.testing.assert_array_equal(images.decode(allowed, "x"), images.decode(whole, "x"))
    out = np.zeros((64, 64, 3), np.uint8)
    assert not images.decode_jpeg_into(bomb, out, "RGB")
    assert not out.any()
    assert images.decode_jpeg_into(memoryview(whole), out, "RGB")
    np.testing.assert_array_equal(out, images.decode(whole, "x"))


def test_a_head_that_hides_its_scans_is_counted_and_not_believed(monkeypatch):
    """A baseline frame and scan stand in a segment, which would end the image at once."""
    whole, bomb = progressive_jpeg(), progressive_jpeg(more_scans=images.MAX_SCANS)
    baseline = encoded(Image.fromarray(SMOOTH[..., 0]), "JPEG")
    out = np.zeros((64, 64, 3), np.uint8)
    assert images.decode_jpeg_into(baseline, out, "RGB")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    scan = baseline.index(b"\xff\xda")
    hidden = baseline[2 : scan + 20]  # frame and scan of the harmless one
    for bare in (b"\xff\x01", b"\xff\xd0"):
        trick = whole[:2] + bare + b"\xff\xfe" + (2 + len(hidden)).to_bytes(2, "big") + hidden
        assert not images.decode_jpeg_into(trick + bomb[2:], out, "RGB")
        with pytest.raises(UserError):
            images.decode(trick + bomb[2:], "trick")


def test_scans_of_thumbnails_and_films_do_not_count():
    whole = progressive_jpeg()
    scans = images.jpeg_scans(whole)
    assert 1 < scans < 20
    thumbnail = b"\xff\xe1" + (2 + 400).to_bytes(2, "big") + b"\xff\xda" * 200
    film = b"\xff\xda" * 1000
    assert images.jpeg_scans(whole[:2] + thumbnail + whole[2:] + film) == scans


@given(st.binary(max_size=200))
def test_scans_of_noise_are_counted_to_its_end(content):
    assert 0 <= images.jpeg_scans(b"\xff\xd8" + content) <= images.MAX_SCANS + 1

import numpy as np

from tests.clean.test_duplicates import texture
from uniface_jax.clean.pipeline import First
from uniface_jax.clean.set_images import ImagesToClean
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.sources.opening import open_source


def resized(number):
    return np.resize(texture(number), (112, 112, 3))


def test_features_are_known_again_by_the_bytes_of_all_images(tmp_path):
    """Another image under the same name is another set; the same folder again is not."""

    def digest():
        images = ImagesToClean("dataset", open_source(tmp_path))
        return images.digest(None), First(images).digest(None)

    for number in range(4):
        person = tmp_path / f"p{number % 2}"
        person.mkdir(exist_ok=True)
        (person / f"{number}.png").write_bytes(encode_png(resized(number)))
    before, first = digest()
    assert digest() == (before, first)
    assert before != first
    (tmp_path / "p1" / "3.png").write_bytes(encode_png(resized(9)))
    assert digest()[0] != before

import pickle

import numpy as np
import pytest

from uniface_jax.data.formats import images
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError


def test_it_is_a_source_of_the_given_size():
    source = open_source("synthetic:1000:3000000")
    assert isinstance(source, Source)
    assert (len(source), source.num_classes) == (3_000_000, 1000)
    first, again, far = source[5], open_source("synthetic:1000:3000000")[5], source[2_999_999]
    assert first == again
    assert (first.label, far.label) == (5, 999)
    assert first.image != far.image
    assert images.decode(first.image, "a").shape == (112, 112, 3)
    assert 4000 < source.sizes(np.arange(509)).mean() < 7000
    part = pickle.loads(pickle.dumps(source.part(np.array([7, 2_000_003]))))
    assert [item.label for item in (part[0], part[1])] == [7, 3]


def test_fingerprints_tell_sources_apart():
    texts = ("synthetic:2:4", "synthetic:4:4", "synthetic:2:5")
    assert len({open_source(text).fingerprint() for text in texts}) == 3


@pytest.mark.parametrize("text", ["synthetic:", "synthetic:5:4", "synthetic:0:4", "synthetic:a:b"])
def test_what_is_allowed_is_said(text):
    with pytest.raises(UserError, match=rf"{text}: expected synthetic:CLASSES:IMAGES"):
        open_source(text)

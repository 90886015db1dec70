"""The count of images that others stood in for."""

import numpy as np

from uniface_jax.data.sources.synthetic import SyntheticSource
from uniface_jax.train import skipped_images
from uniface_jax.train.skipped_images import SkippedImages


def test_each_is_counted_and_each_record_named_once(monkeypatch):
    monkeypatch.setattr(skipped_images, "MAX_NAMED", 2)
    warnings = []
    skipped = SkippedImages(SyntheticSource(3, 40), warnings.append)
    skipped.total = 7  # of the checkpoint that is resumed
    for records in ([], [4, 9], [4], [30]):
        skipped.count({"skipped": np.array(records, np.int64)})
    assert skipped.total_of_all() == skipped.total == 11
    assert skipped.total_of_all() == 11
    assert len(warnings) == 2
    assert "record 4 cannot be used; another one stands in for it" in warnings[0]
    assert warnings[1].endswith("further ones are only counted")

"""Lists of noisy images that cannot be read."""

import pytest

from uniface_jax.errors import UserError
from uniface_jax.evaluate.protocols.megaface.noise_lists import read_noise_list


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\t \n", "line 1: no path after the tab"), (None, "not a readable list")],
)
def test_bad_noise_lists(tmp_path, text, message):
    path = tmp_path / "noise.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_noise_list(path)

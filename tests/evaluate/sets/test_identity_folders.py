"""Identity folders, and whom a table or a folder above them says to be of which population."""

import pytest

from uniface_jax.errors import UserError
from uniface_jax.evaluate.sets.identity_folders import read_identities, read_populations


def test_identity_folders_and_populations(tmp_path):
    folder, names = tmp_path, [f"p{i // 3}/{i % 3}.png" for i in range(12)]
    for name in names:
        (folder / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "faces" / name).touch()
    found = read_identities("faces", folder / "faces")
    assert list(found.images.names) == names
    assert found.labels.tolist() == [f"p{i // 3}" for i in range(12)]
    assert read_populations("faces", folder / "faces").populations is None
    table = folder / "who.csv"
    table.write_text("person,population\np0,north\np1,south\np2,north\np3,south\n")
    by_table = read_populations("faces", folder / "faces", table)
    assert by_table.populations.tolist() == (["north"] * 3 + ["south"] * 3) * 2
    for content, message in [
        ("p0,north\n", r"who\.csv: no line for p1"),
        ("p0,north\np0,south\n", r"who\.csv: line 2: 'p0,south'; again"),
        ("p0\n", r"who\.csv: line 1: 'p0'; expected person,population"),
    ]:
        table.write_text(content)
        with pytest.raises(UserError, match=message):
            read_populations("faces", folder / "faces", table)
    (folder / "faces" / "nobody").mkdir()
    with pytest.raises(UserError, match="faces/nobody: an identity folder without an image"):
        read_identities("faces", folder / "faces")
    for read in (read_identities, read_populations):
        skipped = read("faces", folder / "faces", skip_faults=True)
        assert list(skipped.images.names) == names
        assert len(skipped.left_out) == 1
        assert "/nobody: an identity" in skipped.left_out[0]
    (folder / "faces" / "nobody").rmdir()
    for person, population in [("p0", "north"), ("p1", "south"), ("p2", "north"), ("p3", "south")]:
        (folder / "world" / population).mkdir(parents=True, exist_ok=True)
        (folder / "faces" / person).rename(folder / "world" / population / person)
    nested = read_populations("faces", folder / "world")
    assert nested.populations.tolist() == ["north"] * 6 + ["south"] * 6
    assert nested.labels[3] == "north/p2"
    assert (folder / "world" / nested.images.names[7]).is_file()
    with pytest.raises(UserError, match="has sub-folders of populations already"):
        read_populations("faces", folder / "world", table)

"""LMDB files: against liblmdb itself, and damaged ones, which it does not survive."""

import pickle
import random
import subprocess
import sys

import lmdb
import msgpack
import numpy as np
import pytest

from tests.helpers.containers import FOLDER, read_or_refused
from uniface_jax.data.formats.lmdb_pages import LmdbFile
from uniface_jax.data.input.balance import class_order
from uniface_jax.data.sources import lmdb as lmdb_source
from uniface_jax.data.sources.lmdb import LmdbSource, open_lmdb
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError

HAIYUWU = FOLDER / "lmdb" / "haiyuwu.lmdb"


def write(path, records, own=None, *, subdir=False):
    """Write values by key as imagelist2lmdb.py does; own: the values beside the records."""
    database = lmdb.open(str(path), map_size=1 << 28, subdir=subdir, sync=False, lock=False)
    with database.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    with database.begin(write=True) as transaction:
        for key, value in (own_values(records) if own is None else own).items():
            transaction.put(key, value)
    database.close()
    return path


def own_values(records, classes=3):
    values = {b"__keys__": list(records), b"__len__": len(records), b"__classnum__": classes}
    return {key: msgpack.packb(value) for key, value in values.items()}


def records(count):
    """Return records of all sizes: in a leaf, and in one page or many of their own."""
    sizes = np.random.default_rng(0).integers(1, 9000, count)
    return {
        b"%d" % i: msgpack.packb((b"%d " % i * (int(size) // 4), i % 3))
        for i, size in enumerate(sizes)
    }


def test_a_tree_of_several_levels_is_liblmdbs(tmp_path):
    written = records(3000)
    source = open_source(write(tmp_path / "set.lmdb", written))
    database = lmdb.open(str(tmp_path / "set.lmdb"), subdir=False, readonly=True, lock=False)
    with database.begin() as transaction:
        assert database.stat()["depth"] > 1
        with LmdbFile(tmp_path / "set.lmdb") as opened:
            found = {
                key: opened.value(int(offset), int(size))
                for nodes in opened
                for key, offset, size in zip(nodes.keys, nodes.offsets, nodes.sizes, strict=True)
            }
        assert found == dict(transaction.cursor())
    database.close()
    assert [item.name for item in source] == [str(i) for i in range(3000)]
    image, label = msgpack.unpackb(written[b"1234"])
    assert source[1234] == (image, label, "1234")
    again = pickle.loads(pickle.dumps(source))
    assert again[2999] == source[2999]
    assert pickle.loads(pickle.dumps(source.part(np.array([7, 3]))))[1] == source[3]


def test_a_folder_of_lmdbs_own_and_records_of_old_msgpack(tmp_path):
    old = {b"%d" % i: msgpack.packb((b"image", i), use_bin_type=False) for i in range(3)}
    own = own_values(old) | {b"__keys__": msgpack.packb(list(old), use_bin_type=False)}
    write(tmp_path / "folder", old, own, subdir=True)
    assert [tuple(item) for item in open_source(tmp_path / "folder")] == [
        (b"image", i, str(i)) for i in range(3)
    ]


def test_labels_are_read_once_for_a_file_and_not_of_its_images_again(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIFACE_OWN_FOLDER", str(tmp_path / "own"))
    file, everything = write(tmp_path / "set.lmdb", records(300)), np.arange(300)
    read = []
    one = lmdb_source.LmdbPart.__getitem__
    monkeypatch.setattr(
        lmdb_source.LmdbPart, "__getitem__", lambda part, i: read.append(i) or one(part, i)
    )
    source = open_source(file)
    assert source.classes(np.array([4, 2])).tolist() == [1, 2]
    assert read == [4, 2]  # of few images those alone
    for _ in range(2):
        np.testing.assert_array_equal(source.classes(everything), everything % 3)
    places = [int(source._images.offsets[i]) for i in read[2:]]
    assert len(places) == 300
    assert places == sorted(places)  # as they lie on the disk
    order = class_order(open_source(file), [(300, 1.0)], "classes", None)  # another run
    again = pickle.loads(pickle.dumps(source))  # a worker
    np.testing.assert_array_equal(again.classes(everything), everything % 3)
    assert order.length == 300
    assert len(read) == 302


def test_labels_are_read_again_of_a_changed_file_and_where_what_was_kept_is(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIFACE_OWN_FOLDER", str(tmp_path / "own"))
    everything = np.arange(30)
    source = open_source(write(tmp_path / "set.lmdb", records(30)))
    np.testing.assert_array_equal(source.classes(everything), everything % 3)
    (kept,) = (tmp_path / "own" / "labels").iterdir()
    content = bytearray(kept.read_bytes())
    content[-40] ^= 1  # of the last label, before the digest of 32 bytes
    kept.write_bytes(content)
    np.testing.assert_array_equal(
        open_source(tmp_path / "set.lmdb").classes(everything), everything % 3
    )
    assert kept.read_bytes() != content  # written anew
    others = {key: msgpack.packb((b"image", 1)) for key in records(30)}
    written = write(tmp_path / "set.lmdb", others)
    assert set(open_source(written).classes(everything)) == {1}
    monkeypatch.setenv("UNIFACE_OWN_FOLDER", str(tmp_path / "set.lmdb"))  # none can be made there
    assert set(open_source(written).classes(everything)) == {1}


def test_keys_give_the_order_and_the_images(tmp_path):
    written = records(12)
    own = own_values(dict.fromkeys([b"11", b"2", b"0"]))
    source = open_source(write(tmp_path / "set.lmdb", written, own))
    assert [item.name for item in source] == ["11", "2", "0"]


def test_a_mask_takes_its_images_in_its_order(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([7, 2, 2], np.int32))
    whole = open_source(HAIYUWU)
    source = open_source(f"lmdb:{HAIYUWU}:{tmp_path / 'mask.npy'}")
    assert [*source] == [whole[7], whole[2], whole[2]]
    assert source.num_classes == whole.num_classes
    assert source.name == f"{HAIYUWU}:mask.npy"
    assert source.fingerprint() != whole.fingerprint()
    assert len(open_lmdb(str(HAIYUWU))) == len(whole)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.array([0, 10]), r"mask\.npy: index 10, expected 0\.\.9"),
        (np.array([-1]), r"mask\.npy: index -1, expected 0\.\.9"),
        (np.array([], int), "no index"),
        (np.array([True]), "bool .*expected whole numbers"),
        (np.array([[1]]), "expected whole numbers in one row"),
        (np.array([{}]), "object .*expected whole numbers"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path, mask, message):
    np.save(tmp_path / "mask.npy", mask)
    with pytest.raises(UserError, match=message):
        LmdbSource(HAIYUWU, tmp_path / "mask.npy")


def test_a_mask_takes_no_more_memory_than_it_has_bytes(tmp_path):
    np.save(tmp_path / "mask.npy", np.zeros(10, np.int64))
    whole = (tmp_path / "mask.npy").read_bytes()
    (tmp_path / "mask.npy").write_bytes(whole.replace(b"(10,)", b"(9**9,)"[:7]))
    with pytest.raises(UserError, match=r"mask\.npy"):
        LmdbSource(HAIYUWU, tmp_path / "mask.npy")
    with pytest.raises(UserError, match=r"none\.npy: cannot be read"):
        LmdbSource(HAIYUWU, tmp_path / "none.npy")


IMAGE = msgpack.packb((b"image", 0))


@pytest.mark.parametrize(
    ("written", "own", "message"),
    [
        ({b"0": IMAGE, b"00": IMAGE}, None, r"key b'00': expected keys"),
        ({b"0": IMAGE, b"image-1": IMAGE}, None, r"key b'image-1'"),
        ({b"0": IMAGE}, {}, "no __len__; expected keys"),
        ({b"0": IMAGE}, own_values({b"0": 0, b"1": 0}), "2 keys of 1 records"),
        ({b"0": IMAGE}, own_values({b"7": 0}), "key 7: in __keys__, but has no record"),
        ({b"0": IMAGE}, own_values({b"0": 0}, 0), "__classnum__ is 0"),
        ({b"0": IMAGE}, own_values({b"0": 0}, b"x"), "__classnum__: a bytes"),
        ({b"0": IMAGE}, own_values({b"0": 0}, [[[]]]), "__classnum__: a tuple"),
        ({b"0": msgpack.packb((b"x", 3))}, None, r"key 0: label 3, expected 0\.\.2"),
        ({b"0": msgpack.packb([b"x"])}, None, r"key 0: expected \(image, label\)"),
        ({b"0": msgpack.packb({1: 2})}, None, "key 0: not msgpack"),
        ({b"0": b"\xc6\xff\xff\xff\xff"}, None, "key 0: not msgpack"),
        ({b"0": IMAGE}, {**own_values({b"0": 0}), b"__keys__": b"\xdd\xff\xff\xff\xff"}, "keys of"),
    ],
)
def test_other_layouts_are_named(tmp_path, written, own, message):
    write(tmp_path / "set.lmdb", written, own)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "set.lmdb")[0]


def test_values_longer_than_any_are_refused_unread(tmp_path, monkeypatch):
    own = own_values(records(3)) | {b"__keys__": bytes(1000)}
    with pytest.raises(UserError, match="__keys__: 1000 bytes, of 3 records"):
        LmdbSource(write(tmp_path / "listed.lmdb", records(3), own))
    monkeypatch.setattr(lmdb_source, "MAX_FILE_BYTES", 9)
    with pytest.raises(UserError, match=r"key \d: \d+ bytes; a record has at most 9"):
        LmdbSource(write(tmp_path / "set.lmdb", records(3)))


def test_a_file_that_is_cut_short_while_it_is_read_is_named(tmp_path):
    source = open_source(write(tmp_path / "set.lmdb", records(30)))
    (tmp_path / "set.lmdb").write_bytes(b"")
    with pytest.raises(UserError, match=r"set\.lmdb: key 3: the file was cut short"):
        source[3]


def test_damaged_pages_are_refused(tmp_path):
    whole = write(tmp_path / "set.lmdb", records(300)).read_bytes()
    pages = range(2, len(whole) // 4096)
    tree = [0, 1, *(page for page in pages if whole[page * 4096 + 10] in (1, 2))]
    rng, refused = random.Random(0), 0
    for _ in range(200):
        content = bytearray(whole)
        page = rng.choice(tree)
        for _ in range(rng.randrange(1, 4)):
            content[page * 4096 + rng.randrange(200)] = rng.randrange(256)
        (tmp_path / "set.lmdb").write_bytes(content)
        refused += bool(read_or_refused(tmp_path / "set.lmdb"))
    assert refused > 20


def test_a_circle_of_pages_is_refused(tmp_path):
    content = bytearray(write(tmp_path / "set.lmdb", records(3000)).read_bytes())
    metas = [content[page * 4096 : page * 4096 + 152] for page in (0, 1)]
    later = max(metas, key=lambda meta: int.from_bytes(meta[144:152], "little"))
    root = int.from_bytes(later[128:136], "little")
    node = int.from_bytes(content[root * 4096 + 16 : root * 4096 + 18], "little")
    content[root * 4096 + node : root * 4096 + node + 4] = root.to_bytes(4, "little")
    (tmp_path / "set.lmdb").write_bytes(content)
    with pytest.raises(UserError, match=rf"page {root}: .*the file is damaged"):
        open_source(tmp_path / "set.lmdb")


@pytest.mark.slow
def test_liblmdb_itself_dies_of_a_damaged_page(tmp_path):
    # Why the package reads pages by itself; here a page's number of nodes is too large.
    content = bytearray(HAIYUWU.read_bytes())
    for page in range(2, len(content) // 4096):
        if content[page * 4096 + 10] == 2:
            content[page * 4096 + 16 : page * 4096 + 64] = b"\xff\xff" * 24
    (tmp_path / "set.lmdb").write_bytes(content)
    program = (
        "import lmdb, sys; e = lmdb.open(sys.argv[1], subdir=False, readonly=True, lock=False)\n"
        "print(len([*e.begin().cursor()]))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "set.lmdb"], check=False)
    assert done.returncode < 0
    assert read_or_refused(tmp_path / "set.lmdb")

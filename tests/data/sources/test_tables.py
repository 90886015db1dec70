"""Tables of labeled images and of pairs, by their columns and by where they lie."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.containers import FOLDER
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.data.sources.pairs import PairSource
from uniface_jax.data.sources.tables import TableSource, split_of
from uniface_jax.errors import UserError

IMAGES = [b"image %d" % i for i in range(6)]


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def labels_of(source):
    return [source[i].label for i in range(len(source))]


def test_labels_are_numbers_or_texts(tmp_path):
    source = open_source(write(tmp_path / "a.parquet", image=IMAGES, label=[7, 3, 7, 3, 9, 9]))
    assert isinstance(source, TableSource)
    assert labels_of(source) == [1, 0, 1, 0, 2, 2]
    assert source.class_names == ["3", "7", "9"]
    assert [source[i].name for i in (0, 5)] == ["a.parquet/0", "a.parquet/5"]
    assert source.sizes(np.array([1])).tolist() == [7]
    people = ["s10", "s2", "s2", "s10", "s2", "s2"]
    source = open_source(write(tmp_path / "b.parquet", image=IMAGES, identity=people))
    assert (source.class_names, labels_of(source)) == (["s2", "s10"], [1, 0, 0, 1, 0, 0])
    for copy in (source, source.part(np.arange(6))):
        again = pickle.loads(pickle.dumps(copy))
        assert [again[i] for i in range(6)] == [source[i] for i in range(6)]


def test_labels_in_dictionaries_are_texts_and_other_types_are_none(tmp_path):
    people = pa.array(["b", "a", "b"]).dictionary_encode()
    source = open_source(write(tmp_path / "a.parquet", image=IMAGES[:3], label=people))
    assert (source.class_names, labels_of(source)) == (["a", "b"], [1, 0, 1])
    for labels in ([["a"], ["b"], ["a"]], [{"a": "b"}] * 3, [0.5, 1.5, 1.5], ["a", None, "b"]):
        file = write(tmp_path / "b.parquet", image=IMAGES[:3], label=labels)
        with pytest.raises(UserError, match=r"b\.parquet: row 0: labels of the type"):
            open_source(file)
    without = pa.DictionaryArray.from_arrays([0, 1, 0], ["a", None])
    table = pa.table({"image": IMAGES[:3], "label": without})
    with pa.ipc.new_file(str(tmp_path / "c.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=r"c\.arrow: row 0: labels of the type"):
        open_source(tmp_path / "c.arrow")


def test_a_column_of_another_name_is_chosen(tmp_path):
    file = write(tmp_path / "a.parquet", image=IMAGES, subject=[0, 0, 0, 1, 1, 1])
    with pytest.raises(UserError, match=r"found image, subject \(--json_key of convert"):
        open_source(file)
    source = open_source(file, SourceOptions(json_key="subject"))
    assert labels_of(source) == [0, 0, 0, 1, 1, 1]


def test_names_of_classes_are_hugging_faces(tmp_path):
    table = pa.table({"image": IMAGES, "label": [0, 1, 0, 1, 0, 1]})
    features = {"label": {"names": ["ann", "bob", "cem"], "_type": "ClassLabel"}}
    told = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": told}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert (source.class_names, source.num_classes) == (["ann", "bob", "cem"], 3)


def test_shards_in_the_places_of_a_hub(tmp_path):
    for split in ("train", "test"):
        for shard in range(2):
            write(
                tmp_path / "data" / f"{split}-0000{shard}-of-00002.parquet",
                image=[f"{split} {shard} {i}".encode() for i in range(2)],
                label=[0, 1],
            )
    source = open_source(tmp_path)
    assert [source[i].image for i in range(4)] == [
        b"train 0 0", b"train 0 1", b"train 1 0", b"train 1 1",
    ]  # fmt: skip
    assert len(open_source(f"{tmp_path}/data/test-*.parquet")) == 4
    for file in (tmp_path / "data").glob("train*"):
        file.rename(file.with_name(file.name.replace("train", "val")))
    with pytest.raises(UserError, match=r"several sets \(test, val\); name those of one"):
        open_source(tmp_path)


def test_arrow_of_save_to_disk(tmp_path):
    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "dataset_info.json").write_text("{}")
    table = pa.table({"image": IMAGES, "label": [0, 0, 1, 1, 2, 2]})
    for number in range(2):
        with pa.ipc.new_stream(folder / f"{number}.arrow", table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": f"{number}.arrow"} for number in (1, 0)]}
    (folder / "state.json").write_text(json.dumps(state))
    source = open_source(tmp_path / "set")
    assert len(source) == 12
    assert source[0].name == "1.arrow/0"
    for name in ("../a.arrow", "", "a" * 300):
        state = {"_data_files": [{"filename": name}]}
        (folder / "state.json").write_text(json.dumps(state))
        with pytest.raises(UserError, match=r"state\.json: _data_files: expected names of files"):
            open_source(tmp_path / "set")


def test_tables_of_pairs_are_pairs():
    for name in ("parquet_pairs", "arrow/agedb_30"):
        assert isinstance(open_source(FOLDER / name), PairSource)


def test_rows_that_are_no_images_with_labels_are_named(tmp_path):
    file = write(tmp_path / "a.parquet", image=IMAGES, label=[0.5] * 6)
    with pytest.raises(UserError, match=r"a\.parquet: row 0: labels of the type double"):
        open_source(file)
    file = write(
        tmp_path / "a.parquet", image=pa.array([], pa.binary()), label=pa.array([], "int8")
    )
    with pytest.raises(UserError, match=r"a\.parquet: no row in it"):
        open_source(file)
    file = write(tmp_path / "a.parquet", image=IMAGES, label=[0, 1, None, 0, 1, 1])
    with pytest.raises(UserError, match="or none; expected whole numbers"):
        open_source(file)


def test_names_of_splits(tmp_path):
    names = ["lfw-00000-of-00001.parquet", "a-b.parquet", "train-00000-of-00002-4fd5a0.parquet"]
    assert [split_of(tmp_path / name) for name in names] == ["lfw", "a-b", "train"]
    assert split_of(tmp_path / "test" / "0000.parquet") == "test"

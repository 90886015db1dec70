"""RecordIO framing, against files that MXNet wrote."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.record_files import write_records
from uniface_jax.data.formats.recordio import MAGIC_BYTES, RecordFile


def test_fixtures_edge_payloads(fixtures_folder):
    file = RecordFile(fixtures_folder / "edge" / "edge.rec")
    expected = json.loads((fixtures_folder / "edge" / "expected.json").read_text())
    payloads = [file.payload(offset).hex() for offset in file.offsets().tolist()]
    assert payloads == [e["hex"] for e in expected]
    lines = (fixtures_folder / "edge" / "edge.idx").read_text().split()
    assert file.offsets().tolist() == [int(at) for at in lines[1::2]]


@given(
    st.lists(st.lists(st.sampled_from([b"", b"a", b"abcd", MAGIC_BYTES])).map(b"".join), min_size=1)
)
@examples(50)
def test_payloads_round_trip_through_the_framing(scratch, payloads):
    file = RecordFile(write_records(scratch, payloads))
    assert [file.payload(offset) for offset in file.offsets().tolist()] == payloads


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "train.rec"

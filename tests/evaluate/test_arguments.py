"""What --data and --embeddings may say."""

from pathlib import Path

import pytest

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, parse_data, parse_embeddings

TAKES = {
    "pictures": PartNames("FOLDER"),
    "match": PartNames(
        "", {"left": "FOLDER", "right": "FOLDER", "list": "FILE"}, ["left", "right"]
    ),
}


def test_one_protocol_needs_no_name_and_several_do():
    only = {"pictures": TAKES["pictures"]}
    found = parse_data(["a,b/c=d", "pictures:e"], only)["pictures"]
    assert found.paths == [Path("a"), Path("b/c=d"), Path("e")]
    both = parse_data(["match:left=l,right=r", "pictures:a", "match:list=x=y"], TAKES)
    assert both["pictures"].paths == [Path("a")]
    assert both["match"].named == {"left": Path("l"), "right": Path("r"), "list": Path("x=y")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "match:left=l,right=r"], "a: begin with the protocol it is for, as in pictures:a"),
        (["lfw:a"], "lfw: is not among the protocols asked for, pictures, match"),
        (["pictures:a"], "left=, right= for match is missing; it takes left=FOLDER,right=FOLDER"),
        (["match:left=l,right=r"], "data for pictures is missing; it takes FOLDER"),
        (["pictures:a", "match:left=l"], "right= for match is missing"),
        (["pictures:a", "match:left=l,left=m"], "left of match is given twice"),
        (["pictures:a", "match:top=l"], "top is no part of match"),
        (["pictures:a", "match:l"], "l: match takes left=FOLDER,right=FOLDER"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(UserError, match=message):
        parse_data(values, TAKES)


def test_embeddings_are_for_a_set_or_for_all():
    assert parse_embeddings(["lfw=a.npy", "b/c=d.npy"]) == {
        "lfw": Path("a.npy"),
        "": Path("b/c=d.npy"),
    }
    with pytest.raises(UserError, match="two for lfw"):
        parse_embeddings(["lfw=a", "lfw=b"])

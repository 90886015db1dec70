"""A page of HTML that needs nothing else: its style, tables, figures and pictures are all in it.

What a page shows is data: blocks, which page.html.jinja writes. The template engine escapes every
value, and the page's policy allows no script and no request, whatever is in it.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jinja2

from uniface_jax.files.printable import printable

_HERE = Path(__file__).parent
_JPEG = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")
_LABEL_LETTERS = 64  # below a picture: three lines


@dataclass(frozen=True)
class Heading:
    """Heading of level 1 to 3; `anchor` is where a link of a level 2 leads."""

    level: int
    text: str
    anchor: str = ""
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """Paragraph of text, in small print as a note."""

    text: str
    note: bool = False
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Links:
    """Texts that lead to anchors of the page: {anchor: text}."""

    targets: Mapping[str, str]
    kind: ClassVar[str] = "links"


@dataclass(frozen=True)
class Table:
    """Table of text. own: rows that are set off; text: left columns; wrap: those of long text."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    own: Sequence[int] = ()
    text: Sequence[int] = ()
    wrap: Sequence[int] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """Picture in the page, or None for the place of one, with the text that says what it is."""

    text: str
    source: str | None

    @property
    def shown(self) -> str:
        """Return the text as far as there is room: its end, which tells files apart."""
        return ending(self.text)


@dataclass(frozen=True)
class Figures:
    """SVG pictures beside one another."""

    pictures: Sequence[Picture]
    kind: ClassVar[str] = "figures"

    @staticmethod
    def of(drawn: Mapping[str, str]) -> "Figures":
        """Return the figures of {text for those who do not see it: SVG}."""
        # As images, so that identifiers in one SVG cannot meet those in another.
        head = "data:image/svg+xml;base64,"
        return Figures(
            [
                Picture(name, head + base64.b64encode(svg.encode()).decode())
                for name, svg in drawn.items()
            ]
        )


@dataclass(frozen=True)
class FacePair:
    """Two faces and their score."""

    score: str
    sides: Sequence[Picture]


@dataclass(frozen=True)
class FacePairs:
    """Pairs of faces with scores."""

    pairs: Sequence[FacePair]
    kind: ClassVar[str] = "face_pairs"

    @staticmethod
    def of(drawn: Sequence[Mapping[str, Any]]) -> "FacePairs":
        """Return the pairs of drawings.hard_pairs; what is no picture in the page is left out."""
        return FacePairs(
            [
                FacePair(
                    f"{pair['score']:.4f}",
                    [
                        Picture(side["label"], source if is_picture(source) else None)
                        for side in pair["sides"]
                        for source in [side.get("picture")]
                    ],
                )
                for pair in drawn
            ]
        )


@dataclass(frozen=True)
class Footer:
    """Last line of the page."""

    text: str
    kind: ClassVar[str] = "footer"


Block = Heading | Paragraph | Links | Table | Figures | FacePairs | Footer


def page(title: str, blocks: Sequence[Block]) -> str:
    """Return the whole document, in which every text of `title` and `blocks` is text.

    Example:
        >>> made = page("x</title>", [Paragraph("<script>alert(1)</script>")])
        >>> "<script" in made, "&lt;script&gt;alert(1)" in made
        (False, True)
    """
    template = _template()
    style = template.environment.get_template("page.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return template.render(
        title=title,
        blocks=blocks,
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(_HERE),
    )
    return environment.get_template("page.html.jinja")


def _shown(value: object) -> object:
    """Return text without control characters; what the template itself made stays as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value)
    return value


def is_picture(source: object) -> bool:
    """Return True for a data URL of a JPEG: results may come from elsewhere, and name any other."""
    return isinstance(source, str) and _JPEG.fullmatch(source) is not None


def ending(name: str, letters: int = _LABEL_LETTERS) -> str:
    """Return the end of a long name, from a folder's beginning on where one is near.

    Example:
        >>> ending("/home/ann/photographs/2024/aligned/s1/1.png", letters=24)
        '…/2024/aligned/s1/1.png'
    """
    if len(name) <= letters:
        return name
    end = name[1 - letters :]
    slash = end.find("/")
    return "…" + (end[slash:] if 0 <= slash < letters // 2 else end)

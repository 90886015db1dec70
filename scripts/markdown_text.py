"""Plain text in Markdown: docstrings and helps hold no markup, and must not be taken for it."""

import re
from collections.abc import Collection, Iterator, Sequence

_SECTION = re.compile(r"(Args|Arguments|Returns|Yields|Raises|Attributes):\s*$")
_FIELD = re.compile(r"(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?P<text>.+)$")
_CODE_SPAN = re.compile(r"(`+[^`]+`+)")
_MARKUP = re.compile(r"([\\\[\]<>*])")
_INDENT = "    "


def escape(docstring: str, fields: Collection[str] = ()) -> str:
    """Return a cleaned docstring with Markdown's characters escaped outside of code.

    `features [B, D]` is no link, `lresnet*` no emphasis, `<name>` no tag. Code is what stands in
    backticks, in indented blocks and in examples. A line that begins with some of `fields` and a
    colon becomes an item of a list.
    """
    return "\n".join(_escaped_lines(docstring.splitlines(), fields))


def _escaped_lines(lines: Sequence[str], fields: Collection[str]) -> Iterator[str]:
    in_section = in_example = in_list = False
    for line in lines:
        if line.strip() and not line.startswith(_INDENT):
            in_section = bool(_SECTION.match(line))
            field = _FIELD.match(line)
            if field and set(field["names"].split(", ")) <= set(fields):
                yield from ([] if in_list else [""])
                in_list = True
                yield f"- `{field['names']}`: {_escape_line(field['text'])}"
                continue
        in_list = in_list and bool(line.strip())
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if in_example or (line.startswith(_INDENT) and not in_section and not in_list):
            yield line
        else:
            yield _escape_line(line)


def _escape_line(line: str) -> str:
    """Return the line escaped; the stars of `*arrays:` and `**options:` stay: arguments."""
    stars = re.match(r"\s*\**(?=\w+(\s\(.*\))?:)", line)
    start = stars.end() if stars else 0
    parts = _CODE_SPAN.split(line[start:])
    parts[::2] = [_MARKUP.sub(r"\\\1", part) for part in parts[::2]]
    return line[:start] + "".join(parts)


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose cells site.css stacks on phones; `name` is its class there."""
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    lines = [heads, ["---"] * len(heads), *cells]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return stacked(name, text)


def stacked(name: str, text: str) -> str:
    """Return Markdown whose tables are in blocks of the classes `stacked` and `name`."""
    block = rf'<div class="stacked {name}" markdown="1">\n\n\1\n</div>\n'
    return re.sub(r"(?m)((?:^\|.*\n)+)", block, text)

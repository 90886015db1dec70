"""Lets mkdocstrings show docstrings as plain text: a griffe extension, named in mkdocs.yml.

Docstrings here are no Markdown: `features [B, D]` is no link, `lresnet*` no emphasis, `<name>` no
tag. What Markdown would take for markup is escaped, but for code: spans in backticks, indented
blocks and examples.
"""

import re
from collections.abc import Iterator
from typing import Any

from griffe import Extension, Object

_SECTION = re.compile(r"(Args|Arguments|Returns|Yields|Raises|Attributes):\s*$")
_CODE_SPAN = re.compile(r"(`+[^`]+`+)")
_MARKUP = re.compile(r"([\\\[\]<>*])")
_INDENT = "    "


def escape(docstring: str) -> str:
    """Return a cleaned docstring with Markdown's characters escaped outside of code."""
    return "\n".join(_escaped_lines(docstring.splitlines()))


def _escaped_lines(lines: list[str]) -> Iterator[str]:
    in_section = in_example = False
    for line in lines:
        if line.strip() and not line.startswith(_INDENT):
            in_section = bool(_SECTION.match(line))
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if in_example or (line.startswith(_INDENT) and not in_section):
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


class PlainDocstrings(Extension):
    """Escapes every docstring that griffe has read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Escape the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = escape(obj.docstring.value)

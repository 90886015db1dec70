"""A page of HTML that needs nothing else: its style, tables, figures and pictures are all in it."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { --ink: #1d2530; --soft: #5b6675; --line: #dde2e8; --fill: #f5f7f9; --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 60px; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; background: #fff; }
h1 { font-size: 26px; margin: 0 0 6px; }
h2 { font-size: 20px; margin: 44px 0 12px; padding-bottom: 6px;
  border-bottom: 2px solid var(--line); }
h3 { font-size: 15px; margin: 26px 0 8px; }
p, li { max-width: 76ch; }
p.note { color: var(--soft); font-size: 13px; }
nav a { margin-right: 16px; color: var(--mark); text-decoration: none; }
.scroll { overflow-x: auto; margin: 10px 0 14px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--fill); font-weight: 600; }
th:first-child, td:first-child, td.text, th.text, th.wrap { text-align: left; }
td.wrap { white-space: normal; text-align: left; overflow-wrap: anywhere; }
tr.own td { background: #eaf4fb; font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 18px; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border: 1px solid var(--line); }
.pairs { display: flex; flex-wrap: wrap; gap: 12px; }
.pair { border: 1px solid var(--line); padding: 6px; width: 216px; font-size: 11px; }
.pair .faces { display: flex; gap: 4px; }
.pair img, .pair .none { width: 100px; height: 100px; object-fit: cover; background: var(--fill);
  display: block; }
.pair b { font-size: 13px; font-variant-numeric: tabular-nums; }
.pair div.label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  color: var(--soft); }
footer { margin-top: 48px; color: var(--soft); font-size: 12px; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return the whole document. `body` is HTML already, `title` is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(level: int, text: str, anchor: str = "") -> str:
    """Return <h1> … <h3>."""
    identified = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{identified}>{escape(text)}</h{level}>"


def paragraph(text: str, note: bool = False) -> str:
    """Return <p>, in small print as a note."""
    return f'<p class="note">{escape(text)}</p>' if note else f"<p>{escape(text)}</p>"


def links(targets: Mapping[str, str]) -> str:
    """Return texts that lead to anchors of the page: {anchor: text}."""
    inner = "".join(
        f'<a href="#{escape(anchor)}">{escape(text)}</a>' for anchor, text in targets.items()
    )
    return f"<nav>{inner}</nav>"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    own: Sequence[int] = (),
    text: Sequence[int] = (),
    wrap: Sequence[int] = (),
) -> str:
    """Return a table. own: rows that are set off; text: left columns; wrap: those of long text."""
    head = "".join(
        f"<th{_class(column, text, wrap)}>{escape(cell)}</th>" for column, cell in enumerate(heads)
    )
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(
            f"<td{_class(column, text, wrap)}>{escape(cell)}</td>"
            for column, cell in enumerate(row)
        )
        lines.append(f"<tr{' class=own' if number in own else ''}>{cells}</tr>")
    inner = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{inner}</table></div>'


def _class(column: int, text: Sequence[int], wrap: Sequence[int]) -> str:
    kind = "wrap" if column in wrap else "text" if column in text else ""
    return f' class="{kind}"' if kind else ""


def figures(drawn: Mapping[str, str]) -> str:
    """Return SVG pictures beside one another: {text for those who do not see it: SVG}."""
    # As images, so that identifiers in one SVG cannot meet those in another.
    cells = [
        f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(svg.encode()).decode()}"></figure>'
        for name, svg in drawn.items()
    ]
    return f'<div class="figures">{"".join(cells)}</div>'


def face_pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return pairs of faces with scores, of drawings.hard_pairs."""
    cells = []
    for pair in pairs:
        faces, labels = [], []
        for side in pair["sides"]:
            label = escape(str(side["label"]))
            source = side["picture"]
            # Results may come from elsewhere: nothing but a picture in the page is taken.
            inside = isinstance(source, str) and source.startswith("data:image/jpeg;base64,")
            faces.append(
                f'<img alt="{label}" src="{escape(source)}">'
                if inside
                else '<div class="none"></div>'
            )
            labels.append(f'<div class="label" title="{label}">{label}</div>')
        cells.append(
            f'<div class="pair"><div class="faces">{"".join(faces)}</div>'
            f"<b>{float(pair['score']):.4f}</b>{''.join(labels)}</div>"
        )
    return f'<div class="pairs">{"".join(cells)}</div>'

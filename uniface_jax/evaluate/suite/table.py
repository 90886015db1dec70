"""One table of a suite, as Markdown and LaTeX: a row a network, a column a set."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniface_jax.evaluate.report import paper
from uniface_jax.evaluate.report.results import Run
from uniface_jax.evaluate.suite.columns import COLUMNS, FIRST_COLUMN, values
from uniface_jax.files.printable import printable

MARKDOWN, LATEX = "suite.md", "suite.tex"
FAILED, OTHER_DATA = "failed", "†"
_LATEX_SIGNS = re.compile(r"[&%$#_{}~^\\]")
_LATEX_WORDS = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
_GREEK = {"λ": r"$\lambda$", "≤": r"$\leq$", "≈": r"$\approx$", OTHER_DATA: r"$^\dagger$"}


@dataclass(frozen=True)
class SuiteTable:
    """Heads, rows and notes, all text. The first two columns are a network and its training set."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def suite_table(run: Run, failures: Mapping[str, str]) -> SuiteTable:
    """Return the table of a run's numbers, with those of the paper that share a column.

    failures: the line of each set that failed, by its name in finding.find_sets.
    """
    own: dict[str, str] = {}
    other_data = False
    for protocol, found in run.metrics["protocols"].items():
        for name, metrics in found["sets"].items():
            comparable = paper.comparable(protocol, name, metrics)
            for column, value in values(protocol, name, metrics).items():
                marked = column in _PAPER and column not in comparable
                other_data |= marked
                own[column] = f"{value:.2f}" + (OTHER_DATA if marked else "")
    for name in failures:
        own[FIRST_COLUMN[name]] = FAILED
    columns = [column for column in COLUMNS if column in own]
    rows = [[run.name, "this evaluation", *(own[column] for column in columns)]]
    for row in paper.rows_for(set(columns)):
        cells = [f"{row.values[c]:.2f}" if c in row.values else "" for c in columns]
        rows.append([f"{row.method} (UniFace's paper)", row.training, *cells])
    notes = [f"{name}: {FAILED}: {line}" for name, line in failures.items()]
    if other_data:
        notes.append(f"{OTHER_DATA} other data than the paper's, by the number of pairs or images")
    notes.append(
        "Percent; accuracy of LFW and the sets after it by folds, IJB at the ROC's nearest point. "
        "RFW's deviation and ratio are of the four races."
    )
    return SuiteTable(["network", "trained on", *columns], rows, notes)


_PAPER = frozenset(column for row in paper.ROWS for column in row.values)


def markdown(table: SuiteTable) -> str:
    r"""Return the table as Markdown, its notes below.

    >>> print(markdown(SuiteTable(["network", "LFW"], [["a|b", "99.50"]], ["Percent."])))
    | network | LFW |
    |---|---:|
    | a\|b | 99.50 |
    <BLANKLINE>
    - Percent.
    <BLANKLINE>
    """
    aligned = ["---:" if _is_number(column, table) else "---" for column in range(len(table.heads))]
    lines = [_markdown_row(table.heads), "|" + "|".join(aligned) + "|"]
    lines += map(_markdown_row, table.rows)
    notes = ["- " + printable(note).replace("<", "&lt;") for note in table.notes]
    return "\n".join([*lines, "", *notes, ""])


def _markdown_row(cells: Sequence[str]) -> str:
    shown = (printable(cell).replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return "| " + " | ".join(shown) + " |"


def latex(table: SuiteTable) -> str:
    r"""Return the table as a LaTeX tabular, which needs no package; its notes are comments.

    >>> print(latex(SuiteTable(["network", "LFW"], [["a_b", "99.50"]], ["Percent."])))
    % Percent.
    \begin{tabular}{lr}
    \hline
    network & LFW \\
    \hline
    a\_b & 99.50 \\
    \hline
    \end{tabular}
    <BLANKLINE>
    """
    form = "".join("r" if _is_number(c, table) else "l" for c in range(len(table.heads)))
    rows = [" & ".join(map(_latex_text, cells)) + r" \\" for cells in (table.heads, *table.rows)]
    lines = [f"% {printable(note)}" for note in table.notes]
    lines += [rf"\begin{{tabular}}{{{form}}}", r"\hline", rows[0], r"\hline", rows[1]]
    lines += [r"\hline", *rows[2:]] if rows[2:] else []
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _is_number(column: int, table: SuiteTable) -> bool:
    return any(row[column][:1].isdigit() for row in table.rows) and column != 0


def _latex_text(text: str) -> str:
    escaped = _LATEX_SIGNS.sub(lambda m: _LATEX_WORDS.get(m[0], "\\" + m[0]), printable(text))
    for sign, command in _GREEK.items():
        escaped = escaped.replace(sign, command)
    return escaped

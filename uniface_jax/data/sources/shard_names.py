"""Patterns that name several shards: train-{000000..000127}.tar, {a,b}.tar, train-*.parquet."""

import glob
import re
from pathlib import Path

from uniface_jax.data.sources.labels import natural_key
from uniface_jax.errors import UserError
from uniface_jax.files.paths import expanded, split_parts

MAX_SHARDS = 1 << 17
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


def is_pattern(text: str) -> bool:
    """Return True where a path that is not there may be a pattern of paths."""
    return bool(_BRACES.search(text)) or glob.has_magic(text)


def expand_shards(text: str) -> list[Path]:
    """Return the files that a pattern names: those of braces in their order, of * naturally.

    Braces are the shell's, and WebDataset's: {000..127} counts, with leading zeros as the first
    number has them; {a,b} takes turns.

    Raises:
        UserError: the pattern names no file, or one that is not there, or MAX_SHARDS or more.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("s8.tar", "s9.tar", "s10.tar"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     [file.name for file in expand_shards(f"{folder}/s{{9..10}}.tar")]
        ['s9.tar', 's10.tar']
    """
    found: list[Path] = []
    for name in _braces_expanded(text):
        name = expanded(name)
        if not glob.has_magic(name) or Path(name).exists():
            found.append(Path(name))
            continue
        root = Path(Path(name).anchor)
        matches = sorted(root.glob(str(Path(name).relative_to(root))), key=_by_name)
        if not matches:
            raise UserError(f"{name}: names no file")
        found += matches
    missing = next((file for file in found if not file.exists()), None)
    if missing is not None:
        raise UserError(f"{missing}: no such file; {text} names {len(found)}")
    if len(set(found)) != len(found):
        raise UserError(f"{text}: names a file twice")
    return found


def split_sets(text: str) -> list[str]:
    """Return the paths or patterns that commas separate; those in braces are of a pattern.

    Example:
        >>> split_sets("ms1m,{glint,webface}/train-*.tar,synthetic:2:4")
        ['ms1m', '{glint,webface}/train-*.tar', 'synthetic:2:4']
    """
    sets: list[str] = []
    for piece in split_parts(text):
        if sets and sets[-1].count("{") > sets[-1].count("}"):
            sets[-1] += f",{piece}"
        else:
            sets.append(piece)
    return sets


def _by_name(path: Path) -> tuple[object, ...]:
    return natural_key(str(path))


def _braces_expanded(text: str) -> list[str]:
    """Return the texts that a text with braces stands for."""
    texts = [text]
    while match := _BRACES.search(texts[0]):
        choices = _choices(match[1])
        if len(texts) * len(choices) >= MAX_SHARDS:
            raise UserError(f"{text[:200]}: names {MAX_SHARDS} files or more")
        # The same braces stand at the same place behind what differs before them.
        texts = [_BRACES.sub(_verbatim(one), each, count=1) for each in texts for one in choices]
    return texts


def _verbatim(text: str) -> str:
    return text.replace("\\", r"\\")


def _choices(inside: str) -> list[str]:
    """Return what the inside of braces stands for."""
    numbers = _RANGE.fullmatch(inside)
    if not numbers:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < MAX_SHARDS:
        raise UserError(f"{{{inside}}}: expected {{FIRST..LAST}}, below {MAX_SHARDS} of them")
    return [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]

"""Paths as people write them: ~ for a home folder, several by commas, names in any Unicode form."""

import re
import unicodedata
from pathlib import Path

from uniface_jax.errors import UserError

# The shell expands ~ at the beginning of a word alone, which --flag=~/x is not.
_HOME = re.compile(r"(?:(?<=^)|(?<=[=,:]))(~[^/,=:~]*)(?=/|,|$)")


def expanded(text: str) -> str:
    """Return a flag, or a path or several, with ~ and ~NAME as the home folders that they mean.

    A ~ counts where a path begins: at the start, or after =, a comma or a colon.

    Raises:
        UserError: there is no such user, or no home folder.

    Example:
        >>> import os
        >>> os.environ["HOME"] = "/home/ann"
        >>> expanded("--data=pairs:~/pairs.txt,root=~/faces"), expanded("a~/b")
        ('--data=pairs:/home/ann/pairs.txt,root=/home/ann/faces', 'a~/b')
    """

    def home(found: re.Match[str]) -> str:
        try:
            return str(Path(found[1]).expanduser())
        except RuntimeError as e:
            raise UserError(f"{text}: {found[1]} is no user's home; ./~ is a file called so") from e

    return _HOME.sub(home, text)


def split_parts(text: str) -> list[str]:
    """Return the parts, PATH or KEY=PATH, that are separated by commas.

    A comma is of a path where that path is there: the longest one is taken.

    Example:
        >>> split_parts("lfw.bin,root=faces")
        ['lfw.bin', 'root=faces']
    """
    pieces, parts = text.split(","), list[str]()
    while pieces:
        lengths = (n for n in range(len(pieces), 1, -1) if _is_path(",".join(pieces[:n])))
        length = next(lengths, 1)
        parts.append(",".join(pieces[:length]))
        del pieces[:length]
    return [part for part in parts if part]


def split_paths(text: str) -> list[Path]:
    """Return the paths in a text that separates them by commas, see split_parts."""
    return [Path(part) for part in split_parts(text)]


def _is_path(part: str) -> bool:
    """Return True where PATH, or the PATH of KEY=PATH, is there."""
    try:
        return Path(part).exists() or Path(re.sub(r"^\w+=", "", part)).exists()
    except (OSError, ValueError):  # too long for a path
        return False


def there(path: Path) -> Path:
    """Return the path by which a file is there whose name is written in another Unicode form.

    macOS takes letters and their marks apart (NFD), others keep them together (NFC). A path that
    exists, or that exists in no form, is returned as it is.
    """
    if path.exists():
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        known = next((form for form in forms if (found / form).exists()), None)
        if known is None:
            return path
        found /= known
    return found

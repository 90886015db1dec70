"""Names from elsewhere as text that is safe to show: in a terminal, on a page, in a figure."""

import re

# Besides control characters: the marks that turn the direction of writing, so that a name cannot be
# shown as another one, what separates lines for some programs, and what no XML may hold.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    r"\ufffe\uffff]"
)


def printable(text: str) -> str:
    r"""Return `text` with what a terminal or a browser would not show as a letter escaped.

    Those are control characters, marks of the direction of writing, and the bytes of a file name
    that are no UTF-8, which Python holds as surrogates. Any other character stays as it is, so
    that the result can be encoded.

    Example:
        >>> print(printable("a\nb\x1b[31m"), printable("No\udcebl.png"))
        a\nb\x1b[31m No\xebl.png
    """
    return _UNSEEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # of os.fsdecode
        return f"\\x{code - 0xDC00:02x}"
    return repr(found.group())[1:-1]

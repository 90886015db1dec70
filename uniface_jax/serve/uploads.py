"""Photographs and fields of a multipart form, held in memory and never on disk."""

from collections.abc import Mapping
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from uniface_jax.serve.limits import MAX_FIELD_BYTES, MAX_FIELDS, Limits
from uniface_jax.serve.problems import Problem
from uniface_jax.serve.service import Photograph

FORM = "multipart/form-data"


@dataclass(frozen=True)
class Form:
    """Photographs by field, each a name and its bytes, and the other fields."""

    photographs: Mapping[str, list[Photograph]]
    fields: Mapping[str, str]

    def one(self, field: str) -> Photograph:
        """Return the one photograph of a field; Problem where there are more or none."""
        found = self.photographs.get(field, [])
        if len(found) != 1:
            raise Problem(422, "form", f"{field}: {len(found)} photographs; expected one")
        return found[0]

    def number(self, field: str, low: float, high: float) -> float | None:
        """Return a field's number, None where it is not there; Problem for one not in low..high."""
        text = self.fields.get(field)
        if text is None or not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise Problem(
                422, "form", f"{field}: {text}: expected a number from {low:g} to {high:g}"
            )
        return value

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        """Return a field's word, the first where it is not there; Problem for any other word."""
        word = self.fields.get(field) or choices[0]
        if word not in choices:
            raise Problem(422, "form", f"{field}: {word}: expected one of {', '.join(choices)}")
        return word


async def read_form(
    request: Request, limits: Limits, photographs: frozenset[str], fields: frozenset[str]
) -> Form:
    """Read a form whose files are of the fields `photographs`, and all else of `fields`.

    Raises Problem for another type, a damaged form, one of more parts or longer fields than are
    taken, and for other fields.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    charset = options.get(b"charset", b"utf-8").lower()
    if kind != FORM.encode() or charset != b"utf-8" or b"boundary" not in options:
        raise Problem(415, "no_form", f"expected {FORM} with a boundary, as UTF-8")
    parser = _InMemory(
        request.headers,
        request.stream(),
        max_files=limits.photographs,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        data = await parser.parse()
    except MultiPartException as e:
        too_many = e.message.startswith("Too many")
        raise Problem(413 if too_many else 400, "form", e.message) from e
    try:
        return await _form(data, photographs, fields)
    finally:
        await data.close()


class _InMemory(MultiPartParser):
    """Parser whose files stay in memory, which the length of the body bounds."""

    spool_max_size = 0  # never rolled over to a file


async def _form(data: FormData, photographs: frozenset[str], fields: frozenset[str]) -> Form:
    files: dict[str, list[Photograph]] = {}
    texts: dict[str, str] = {}
    for name, value in data.multi_items():
        if isinstance(value, UploadFile) and name in photographs:
            files.setdefault(name, []).append((value.filename or "", await value.read()))
        elif isinstance(value, str) and name in fields and name not in texts:
            texts[name] = value
        else:
            expected = ", ".join([*sorted(photographs), *sorted(fields)])
            kind = "file" if isinstance(value, UploadFile) else "text"
            raise Problem(422, "form", f"{name}: a {kind} not expected, or twice; {expected} are")
    return Form(files, texts)

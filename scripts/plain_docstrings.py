"""Lets mkdocstrings show docstrings as the plain text they are: a griffe extension (mkdocs.yml)."""

from typing import Any

from griffe import Class, Extension, Object
from markdown_text import escape  # the sibling script


class PlainDocstrings(Extension):
    """Escapes every docstring that griffe has read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Escape the docstring of a module, function or attribute."""
        if obj.docstring and not isinstance(obj, Class):
            obj.docstring.value = escape(obj.docstring.value)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Escape the docstring of a class, whose members are known now, and list its fields."""
        if cls.docstring:
            parameters = [parameter.name for parameter in getattr(cls, "parameters", ())]
            cls.docstring.value = escape(cls.docstring.value, {*cls.members, *parameters})

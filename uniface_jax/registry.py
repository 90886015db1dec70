"""Parts from outside: their names, and the modules that register them.

Losses, networks, sources, protocols and augmentations each have a Registry, in the room of their
noun. A part declares its hyperparameters by its signature (names and defaults) and their ranges
beside it; these become config keys `loss.NAME.KEY`. A config names the modules to import, so that
every command finds the parts again.
"""

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from uniface_jax.errors import UserError

Part = TypeVar("Part")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_FLAX_FIELDS = ("parent", "name")  # that every nn.Module takes beside its own


class Range(NamedTuple):
    """Allowed values of a hyperparameter.

    Args:
        words: What an error says, behind "must be".
        test: Takes a value of the default's type; True where it is allowed.

    >>> from uniface_jax import Range
    >>> Range("from 0 to below 1", lambda value: 0 <= value < 1).test(0.5)
    True
    """

    words: str
    test: Callable[[Any], bool]


def above(low: float) -> Range:
    """Return the range of all numbers > low."""
    return Range(f"> {low:g}", lambda value: value > low)


def at_least(low: float) -> Range:
    """Return the range of all numbers >= low."""
    return Range(f">= {low:g}", lambda value: value >= low)


def one_of(*allowed: str) -> Range:
    """Return the range of these strings alone."""
    return Range(f"one of {', '.join(allowed)}", lambda value: value in allowed)


class Hyperparameter(NamedTuple):
    """A hyperparameter's default (bool, int, float or str) and range."""

    default: Any
    range: Range


@dataclass(frozen=True)
class Entry(Generic[Part]):
    """One registered part. origin: module and qualified name of the code behind it."""

    name: str
    part: Part
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    builtin: bool = False
    origin: str = ""

    @property
    def defaults(self) -> dict[str, Any]:
        """Return the value of each hyperparameter where none is given."""
        return {key: declared.default for key, declared in self.hyperparameters.items()}

    def checked(self, given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """Return the values of `given` that are not None, once they are known to be allowed.

        prefix: what errors put before a key, as "loss.". Raises UserError for a key that is not
        declared, a value of another type than the default, and one out of range.
        """
        values = {key: value for key, value in given.items() if value is not None}
        for key, value in values.items():
            if key not in self.hyperparameters:
                known = ", ".join(self.hyperparameters) or "no hyperparameter"
                raise UserError(f"{prefix}{key}={value}: {self.name} has only {known}")
            default, allowed = self.hyperparameters[key]
            if not _same_type(value, default):
                raise UserError(f"{prefix}{key}={value!r}: must be a {type(default).__name__}")
            if not allowed.test(value):
                raise UserError(f"{prefix}{key}={value}: must be {allowed.words}")
        return values


class Registry(Mapping[str, Part]):
    """Parts of one kind by name: a mapping, in the order in which they were registered.

    kind: the noun that messages use. section: the config's, whose key SECTION.name chooses a part;
    "" where the config has none. given: names of the arguments that a part is called with, which
    are not hyperparameters. common: hyperparameters that every part from outside has, without
    taking them. reserved: names that parts must not take, because the section has keys called so.
    """

    def __init__(
        self,
        kind: str,
        section: str = "",
        given: Sequence[str] = (),
        common: Mapping[str, Hyperparameter] = MappingProxyType({}),
        reserved: Sequence[str] = (),
    ) -> None:
        self.kind, self.section = kind, section
        self._common = dict(common)
        self._given, self._reserved = tuple(given), frozenset(reserved)
        self._entries: dict[str, Entry[Part]] = {}

    def __getitem__(self, name: str) -> Part:
        return self._entries[name].part

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, name: str, said: str = "") -> Entry[Part]:
        """Return what is registered as `name`; UserError, beginning with `said`, where nothing is.

        said: what the user gave, as "loss.name='focal'".
        """
        if name not in self._entries:
            raise UserError(
                f"{said or f'{self.kind} {name!r}'}: allowed are {', '.join(self._entries)}, and "
                f"what a module of {'config.imports' if self.section else '--imports'} registers"
            )
        return self._entries[name]

    def from_outside(self) -> list[Entry[Part]]:
        """Return the entries that did not come with this package, by name."""
        outside = [entry for entry in self._entries.values() if not entry.builtin]
        return sorted(outside, key=lambda entry: entry.name)

    def add(
        self,
        name: str,
        part: Part,
        ranges: Mapping[str, Range] | None = None,
        *,
        code: Any = None,
        builtin: bool = False,
    ) -> None:
        """Register `part` under `name`; the range of every hyperparameter is in `ranges`.

        code: what the part runs, whose signature declares the hyperparameters; the part itself
        where None. builtin: it comes with this package; without ranges, its hyperparameters are
        declared elsewhere. Raises UserError for a name that is taken or no lower-case word, and for
        hyperparameters without a default or a range. A module that is reloaded may register its
        parts again.
        """
        said = f"{self.kind} {name!r}"
        if not _NAME.fullmatch(name) or name in self._reserved:
            raise UserError(
                f"{said}: no name for a part; expected lower-case letters, digits and underscores, "
                f"and none of {', '.join(sorted(self._reserved)) or 'the keys beside it'}"
            )
        code = part if code is None else code
        origin = f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', '')}"
        before = self._entries.get(name)
        if before and (before.builtin or before.origin != origin):
            raise UserError(f"{said}: registered already, by {before.origin}; take another name")
        elsewhere = builtin and ranges is None
        declared = {} if elsewhere else _declared(said, code, self._given, ranges or {})
        if taken := declared.keys() & self._common.keys():
            raise UserError(
                f"{said}: {min(taken)} is a hyperparameter of every {self.kind} already"
            )
        declared |= {} if builtin else self._common
        self._entries[name] = Entry(name, part, declared, builtin, origin)

    def decorator(self, name: str, ranges: Mapping[str, Range]) -> Callable[[Any], Any]:
        """Return a decorator that registers what it is given, and gives it back as it is."""

        def decorate(part: Any) -> Any:
            self.add(name, part, ranges)
            return part

        return decorate


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, Real) and not isinstance(value, bool)
    return type(value) is type(default)


def _declared(
    said: str, code: Any, given: Sequence[str], ranges: Mapping[str, Range]
) -> dict[str, Hyperparameter]:
    """Return the hyperparameters that the signature of `code` declares, with their ranges."""
    if not callable(code):
        raise UserError(f"{said}: a {type(code).__name__}; expected a function or a class")
    parameters = dict(inspect.signature(code).parameters)
    if inspect.isclass(code):
        parameters = {key: p for key, p in parameters.items() if key not in _FLAX_FIELDS}
    missing = [key for key in given if key not in parameters]
    if missing:
        raise UserError(
            f"{said}: takes ({', '.join(parameters)}); expected {', '.join(given)} and "
            "hyperparameters"
        )
    declared = {}
    for key, parameter in parameters.items():
        if key in given:
            continue
        default = parameter.default
        if not isinstance(default, bool | int | float | str):
            raise UserError(
                f"{said}: hyperparameter {key} has no default that a config can hold; expected a "
                "bool, int, float or str"
            )
        allowed = ranges.get(key)
        if allowed is None and isinstance(default, bool):
            allowed = Range("True or False", lambda value: isinstance(value, bool))
        if allowed is None:
            raise UserError(f"{said}: hyperparameter {key} has no range; add {key}=Range(…)")
        if not allowed.test(default):
            raise UserError(f"{said}: {key}={default} is the default, but must be {allowed.words}")
        declared[key] = Hyperparameter(default, allowed)
    if unknown := [key for key in ranges if key not in declared]:
        raise UserError(f"{said}: a range for {unknown[0]}, which is no hyperparameter of it")
    return declared


def import_parts(
    modules: Sequence[str], key: str = "config.imports", workdir: Path | None = None
) -> None:
    """Import `modules` by their dotted names, so that the parts in them are registered.

    They are looked for as Python does, and then in the current folder. One line on standard error
    names each that is imported for the first time. key: where the names are from, for errors.
    workdir: the folder that named them, if one did; nothing is imported from inside of it, because
    it may be somebody else's. Raises UserError that names a module which cannot be imported.
    """
    if not isinstance(modules, list | tuple):
        raise UserError(f"{key}: {modules!r} is no list of modules' names")
    for name in modules:
        if not isinstance(name, str) or not _MODULE.fullmatch(name):
            raise UserError(
                f"{key}: {name!r} is no module's name; expected one as my_package.parts"
            )
        if name in sys.modules:
            continue
        where = _found(name, key)
        inside = [path for path in where if workdir and path.is_relative_to(workdir.resolve())]
        if inside:
            raise UserError(
                f"{key}: {name} would be imported from inside the workdir ({inside[0]}), whose "
                "code is not run; put the module elsewhere on the Python path"
            )
        try:
            module = importlib.import_module(name)
        except UserError as e:
            raise UserError(f"{key}: {name}: {e}") from e
        except Exception as e:  # whatever code from outside raises
            raise UserError(
                f"{key}: {name} cannot be imported: {type(e).__name__}: {e}{_place(e)}"
            ) from e
        print(f"imported {name} ({getattr(module, '__file__', None)})", file=sys.stderr)


def _found(name: str, key: str) -> list[Path]:
    """Return the files or folders of the top-level package of `name`; UserError for none."""
    top = name.partition(".")[0]
    here = str(Path.cwd())
    spec = importlib.util.find_spec(top)
    if spec is None and here not in sys.path:
        # The console command's first folder is that of the command, not the current one. Last, so
        # that nothing in it hides an installed module.
        sys.path.append(here)
        spec = importlib.util.find_spec(top)
    if spec is None:
        raise UserError(f"{key}: no module {top!r} in {here} or elsewhere on the Python path")
    places = [
        *(spec.submodule_search_locations or ()),
        *([spec.origin] if spec.has_location else ()),
    ]
    return [Path(place).resolve() for place in places if place]


def _place(error: Exception) -> str:
    """Return where an import failed, " (FILE, line 3)"; "" where no module's own line did."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""

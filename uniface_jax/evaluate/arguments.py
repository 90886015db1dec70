"""Values of --data and --embeddings: which file is which part of which protocol.

A value of --data is [PROTOCOL:]PART,PART,… and a PART is PATH or KEY=PATH. The protocol may be left
out where only one is asked for; the flag may be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.files.paths import split_parts


@dataclass(frozen=True)
class PartNames:
    """Files that a protocol takes, in words for help and errors.

    paths: what unnamed paths are, "" where there are none. keys: of named parts, with what each is.
    required: those that must be given.
    """

    paths: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    required: Sequence[str] = ()

    def describe(self) -> str:
        """Return all of it in one line."""
        named = [
            f"{key}={what}" if key in self.required else f"[{key}={what}]"
            for key, what in self.keys.items()
        ]
        return ",".join(([self.paths] if self.paths else []) + named)


@dataclass(frozen=True)
class Parts:
    """Files that the user gave: unnamed paths in their order, and one path a key."""

    paths: Sequence[Path] = ()
    named: Mapping[str, Path] = field(default_factory=dict)


def parse_data(values: Sequence[str], protocols: Mapping[str, PartNames]) -> dict[str, Parts]:
    """Parse all values of --data into the parts of each of `protocols`.

    Raises UserError naming the value for a protocol that is not asked for, an unknown or repeated
    key or a path where none is taken, and naming the protocol that lacks something.

    >>> parse_data(["lfw.bin,root=faces"], {"pairs": PartNames("FILE", {"root": "FOLDER"})})
    {'pairs': Parts(paths=[PosixPath('lfw.bin')], named={'root': PosixPath('faces')})}
    """
    paths: dict[str, list[Path]] = {name: [] for name in protocols}
    named: dict[str, dict[str, Path]] = {name: {} for name in protocols}
    for value in values:
        protocol, rest = _protocol_of(value, protocols)
        for part in split_parts(rest):
            key, equals, path = part.partition("=")
            names = protocols[protocol]
            if not equals or "/" in key:
                if not names.paths:
                    raise UserError(f"--data: {part}: {protocol} takes {names.describe()}")
                paths[protocol].append(Path(part))
            elif key not in names.keys:
                raise UserError(
                    f"--data: {key} is no part of {protocol}; it takes {names.describe()}"
                )
            elif key in named[protocol]:
                raise UserError(f"--data: {key} of {protocol} is given twice")
            else:
                named[protocol][key] = Path(path)
    for protocol, names in protocols.items():
        missing = [f"{key}=" for key in names.required if key not in named[protocol]]
        if missing or not (paths[protocol] or named[protocol]):
            lacking = ", ".join(missing) or "data"
            raise UserError(
                f"--data: {lacking} for {protocol} is missing; it takes {names.describe()}"
            )
    return {name: Parts(paths[name], named[name]) for name in protocols}


def parse_embeddings(values: Sequence[str]) -> dict[str, Path]:
    """Parse the values of --embeddings, [SET=]PATH: paths by their set's name, "" for any set.

    Raises UserError naming the set that is given twice.
    """
    given: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or "/" in name:
            name, path = "", value
        if name in given:
            raise UserError(f"--embeddings: two for {name or 'every set'}")
        given[name] = Path(path)
    return given


def _protocol_of(value: str, protocols: Mapping[str, PartNames]) -> tuple[str, str]:
    name, colon, rest = value.partition(":")
    if colon and name in protocols:
        return name, rest
    if colon and name.isidentifier() and not Path(value.partition(",")[0]).exists():
        raise UserError(
            f"--data: {name}: is not among the protocols asked for, {', '.join(protocols)}"
        )
    if len(protocols) > 1:
        raise UserError(
            f"--data: {value}: begin with the protocol it is for, as in "
            f"{next(iter(protocols))}:{value}"
        )
    return next(iter(protocols)), value

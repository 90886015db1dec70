"""Flags that say by which protocols, and on which files, a command evaluates a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from absl import flags

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts, parse_data
from uniface_jax.evaluate.protocols import PROTOCOLS

flags.disclaim_key_flags()  # --help lists them with the command that defines them


@dataclass(frozen=True)
class ProtocolFlags:
    """Flags of define; their values are there once the command line is parsed."""

    protocol: flags.FlagHolder[list[str]]
    data: flags.FlagHolder[list[str]]
    fars: flags.FlagHolder[list[str] | None]

    def parts(self, usage: Callable[[], str]) -> Mapping[str, Parts]:
        """Return the files by protocol; usage: what an error without --data ends with.

        Raises UserError for a protocol that is not known, and as parse_data.
        """
        for name in self.protocol.value:
            PROTOCOLS.entry(name, f"--protocol={name}")
        if not self.data.value:
            raise UserError(f"--data is missing; {usage()}")
        takes = {name: PROTOCOLS[name].takes for name in self.protocol.value}
        return parse_data(self.data.value, takes)

    def targets(self) -> Sequence[float] | None:
        """Return the targets of TAR at FAR; None for the protocol's. UserError for no rate."""
        return [_rate(text) for text in self.fars.value] if self.fars.value else None


def define() -> ProtocolFlags:
    """Define --protocol, --data and --fars."""
    parts = "; ".join(
        f"{name}: {protocol.takes.describe()}" for name, protocol in PROTOCOLS.items()
    )
    return ProtocolFlags(
        flags.DEFINE_list(
            "protocol",
            ["verification"],
            f"One or more, comma-separated, of {', '.join(PROTOCOLS)}.",
        ),
        flags.DEFINE_multi_string("data", [], f"[PROTOCOL:]PART,PART,…; parts: {parts}."),
        flags.DEFINE_list("fars", None, "Targets of TAR at FAR; default: those of the protocol."),
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1:
        raise UserError(f"--fars: {text} is no rate; expected numbers in (0, 1]")
    return rate

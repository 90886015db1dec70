"""The evaluation protocols by name."""

from uniface_jax.evaluation.protocols.base import Protocol
from uniface_jax.evaluation.protocols.ijb import IJB
from uniface_jax.evaluation.protocols.pairs import PAIRS
from uniface_jax.evaluation.protocols.verification import VERIFICATION

PROTOCOLS: dict[str, Protocol] = {"verification": VERIFICATION, "ijb": IJB, "pairs": PAIRS}

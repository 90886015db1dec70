"""The evaluation protocols by name."""

from uniface_jax.evaluation.protocols.base import Protocol
from uniface_jax.evaluation.protocols.folders import FOLDERS
from uniface_jax.evaluation.protocols.ijb import IJB
from uniface_jax.evaluation.protocols.megaface import MEGAFACE
from uniface_jax.evaluation.protocols.mfr import MFR
from uniface_jax.evaluation.protocols.pairs import PAIRS
from uniface_jax.evaluation.protocols.verification import VERIFICATION

PROTOCOLS: dict[str, Protocol] = {
    "verification": VERIFICATION,
    "ijb": IJB,
    "mfr": MFR,
    "megaface": MEGAFACE,
    "pairs": PAIRS,
    "folders": FOLDERS,
}

"""The evaluation protocols by name."""

from uniface_jax.evaluate.protocols.base import Protocol
from uniface_jax.evaluate.protocols.folders import FOLDERS
from uniface_jax.evaluate.protocols.ijb.protocol import IJB
from uniface_jax.evaluate.protocols.megaface.protocol import MEGAFACE
from uniface_jax.evaluate.protocols.mfr.protocol import MFR
from uniface_jax.evaluate.protocols.pairs import PAIRS
from uniface_jax.evaluate.protocols.verification import VERIFICATION

PROTOCOLS: dict[str, Protocol] = {
    "verification": VERIFICATION,
    "ijb": IJB,
    "mfr": MFR,
    "megaface": MEGAFACE,
    "pairs": PAIRS,
    "folders": FOLDERS,
}

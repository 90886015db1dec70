"""Protocol `pairs`: lists of pairs of one's own, by the same metrics as the .bin files."""

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols import verification
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate every list as a set; images are relative to `root`, or near the list."""
    if not parts.paths:
        raise UserError("--data: pairs: no CSV, only root=")
    return verification.run(parts, source, options)


PAIRS = Protocol(
    "Pairs of one's own",
    PartNames(
        "FILE of lines first,second,same, or LFW's pairs.txt", {"root": "FOLDER of the images"}
    ),
    run,
    verification.row,
)

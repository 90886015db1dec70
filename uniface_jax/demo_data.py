"""Command line: prepares the real faces of the demo, without a download.

python -m uniface_jax.demo_data DEST
"""

from pathlib import Path

from uniface_jax import cli
from uniface_jax.data.faces.orl import is_complete, make_demo_data


def main(argv: list[str]) -> None:
    """Align the ORL faces and write the training set and the pairs of unseen people."""
    (name,) = cli.positional(argv, "DEST")
    destination = Path(name)
    if is_complete(destination):
        print(f"{destination}: complete already")
        return
    make_demo_data(destination)
    print(
        f"{destination}: 300 training faces of 30 people in train, "
        "4950 pairs of 10 other people in orl.bin"
    )


if __name__ == "__main__":
    cli.run(main)

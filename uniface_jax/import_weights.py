"""Command line: PyTorch weights in, a workdir for evaluation, export and fine-tuning out.

python -m uniface_jax.import_weights backbone.pth runs/imported

SOURCE is a state dict of UniFace's release (with or without head) or of insightface's iresnet, as
.pth, .pt, .safetensors or .npz. The network is recognized from names and shapes.
"""

from pathlib import Path

from uniface_jax import cli
from uniface_jax.files.writing import expect_writable


def main(argv: list[str]) -> None:
    """Import the weights, and print what the network is."""
    source, workdir = cli.positional(argv, "SOURCE", "WORKDIR")
    expect_writable(Path(workdir))
    # Not at the top: bad arguments are answered without loading the checkpoint library.
    from uniface_jax.weights.workdir import REPORT_FILE, import_weights

    imported = import_weights(Path(source), Path(workdir))
    dropped = sum(row["to"].startswith("dropped") for row in imported.tensors)
    model = ", ".join(f"{key} {value}" for key, value in imported.model.items() if value)
    head = "no head" if imported.prototypes is None else f"{len(imported.prototypes)} classes"
    print(
        f"{source}: {imported.family}'s network ({model}), {head}\n"
        f"{workdir}: {len(imported.tensors) - dropped} tensors taken over, {dropped} dropped as "
        f"not needed, none left over; each is named in {Path(workdir) / REPORT_FILE}"
    )


if __name__ == "__main__":
    cli.run(main)

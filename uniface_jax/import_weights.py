"""Command line: PyTorch weights in, a workdir for evaluation, export and fine-tuning out.

python -m uniface_jax.import_weights backbone.pth runs/imported

SOURCE is a state dict of UniFace's release (with or without head), of insightface's iresnet, ViT or
MobileFaceNet, or of CVLface's ViT, as .pth, .pt, .ckpt, .safetensors or .npz. The network is
recognized from names and shapes. What a training script keeps beside it (a head, a loss, an
averaged copy) is left out and listed; --with_head takes the head.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from uniface_jax import cli
from uniface_jax.files.writing import expect_writable

_PREFIX = flags.DEFINE_string(
    "prefix", None, "Of the network's names, as model_ema.module., where there are several."
)
_HEADS = flags.DEFINE_integer(
    "heads",
    None,
    "Of a ViT's attention, which its weights do not tell, for sizes not published.",
    1,
)
_WITH_HEAD = flags.DEFINE_boolean(
    "with_head", False, "Also take the head beside the network, such as arcface_torch's Partial FC."
)
_LISTED = 8  # of the tensors that were left out


def main(argv: list[str]) -> None:
    """Import the weights, and print what the network is."""
    source, workdir = cli.positional(argv, "SOURCE", "WORKDIR")
    expect_writable(Path(workdir))
    # Not at the top: bad arguments are answered without loading the checkpoint library.
    from uniface_jax.weights.recognise import LEFT_OUT
    from uniface_jax.weights.workdir import REPORT_FILE, import_weights

    imported = import_weights(
        Path(source), Path(workdir), _PREFIX.value, heads=_HEADS.value, with_head=_WITH_HEAD.value
    )
    dropped = sum(row["to"].startswith("dropped") for row in imported.tensors)
    left = [f"{row['name']} {row['shape']}" for row in imported.tensors if row["to"] == LEFT_OUT]
    model = ", ".join(f"{key} {value}" for key, value in _flat(imported.model) if value)
    head = "no head" if imported.prototypes is None else f"{len(imported.prototypes)} classes"
    taken = len(imported.tensors) - dropped - len(left)
    cli.say(
        f"{source}: {imported.family}'s network ({model}), {head}",
        f"{workdir}: {taken} tensors taken over, {dropped} dropped as not needed, "
        f"{len(left) or 'none'} left out; each is named in {Path(workdir) / REPORT_FILE}",
    )
    if left:
        more = f" and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
        cli.say(f"left out, not of the network: {', '.join(left[:_LISTED])}{more}")
    for prefix in imported.copies:
        cli.say(f"another network is at {prefix!r}: --prefix={prefix} takes that one")


def _flat(model: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of config.model, those of a section as vit.heads."""
    for key, value in model.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


if __name__ == "__main__":
    cli.run(main)

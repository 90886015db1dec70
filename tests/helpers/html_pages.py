"""Pages as an HTML parser and as Chromium see them."""

import html.parser
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Elements(html.parser.HTMLParser):
    """Elements of a page in order, each with the names of its attributes, and all its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, tuple(name for name, _ in attributes)))
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def check_is_clean(page: str) -> Elements:
    """The page has no script, no handler and no source that is not in itself."""
    elements = Elements(page)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}
    attributes = {name for _, names in elements.found for name in names}
    assert not {name for name in attributes if name.startswith("on")} | (attributes & {"style"})
    assert all(source.startswith(("#", "data:image/")) for source in elements.sources)
    return elements


def dump_dom(page: Path, profile: Path) -> str:
    """Open a file in Chromium; return the document as it is after its scripts have run."""
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
            "--virtual-time-budget=4000", "--dump-dom", f"file://{page}",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

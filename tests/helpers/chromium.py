"""Chromium driven by its DevTools protocol over a pipe: pages, their requests and their errors.

The protocol's messages are JSON that ends in a zero byte, on the descriptors 3 (in) and 4 (out) of
the browser: no port that others could reach, and no library.
"""

import base64
import json
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.helpers.html_pages import CHROMIUM

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_SECONDS = 60.0  # for an answer, on a machine with much to do


class Chromium:
    """A browser with a profile of its own, in a folder."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._in = os.pipe()
        self._out, from_browser = os.pipe()
        with (profile.parent / f"{profile.name}.log").open("wb") as log:
            self._process = os.posix_spawn(
                CHROMIUM,
                [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                os.environ,
                # Duplicates first: either pipe may have a number that is needed.
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, to_browser, 103),
                    (os.POSIX_SPAWN_DUP2, from_browser, 104),
                    (os.POSIX_SPAWN_DUP2, 103, 3),
                    (os.POSIX_SPAWN_DUP2, 104, 4),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setpgroup=0,
            )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._pages = b"", 0, {}

    def page(self, width: int = 1280, height: int = 900) -> "Page":
        """Open an empty page, whose cookies and storage are its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        return page

    def call(self, method: str, session: str | None = None, **parameters):
        """Ask the browser, and return its answer; events that come meanwhile go to their pages."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._in, left) :]
        number, until = self._number, time.monotonic() + _SECONDS
        while True:
            found = self._message(until - time.monotonic())
            assert found is not None, f"{method}: no answer"
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                return found["result"]

    def wait(self, seconds: float) -> None:
        """Take the events that come within some seconds."""
        until = time.monotonic() + seconds
        while self._message(until - time.monotonic()) is not None:
            pass

    def close(self) -> None:
        """End the browser and all its processes."""
        with suppress(AssertionError, OSError):
            self.call("Browser.close")
        os.close(self._in)
        os.close(self._out)
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _message(self, seconds: float):
        """Return the next message, None where none comes in time."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(seconds, 0))
            if not ready:
                return None
            more = os.read(self._out, 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        page = self._pages.get(message.get("sessionId"))
        if page is not None and "method" in message:
            page.note(message["method"], message["params"])
        return message


class Page:
    """A page. requests: addresses it asked for; errors: what its scripts and logs complain of."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser, self._session = browser, session
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False

    def call(self, method: str, **parameters):
        """Ask the browser about this page."""
        return self.browser.call(method, self._session, **parameters)

    def note(self, method: str, event) -> None:
        """Take an event."""
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(event["url"])
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details["text"])
            self.errors.append(f"exception: {thrown}")
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            entry = event["entry"]
            if entry["source"] == "network" and "responded with a status of 4" in entry["text"]:
                return  # a refusal, which Chromium notes whatever the page does with it
            self.errors.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning"):
            self.errors.append(f"console: {event['args']}")

    def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self._load("Page.navigate", url=url)

    def reload(self) -> None:
        """Load the address again."""
        self._load("Page.reload")

    def _load(self, method: str, **parameters) -> None:
        self._loaded = False
        self.call(method, **parameters)
        end = time.monotonic() + _SECONDS
        while not self._loaded:
            assert time.monotonic() < end, f"{method}: not loaded"
            self.browser.wait(0.05)

    def resize(self, width: int, height: int) -> None:
        """Take the size of a screen in CSS pixels; one under 600 is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def media(self, scheme: str) -> None:
        """Prefer light or dark colors."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def value(self, expression: str):
        """Return what a JavaScript expression gives, once it is settled."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = _SECONDS):
        """Return the value of an expression when it is true for the first time."""
        end = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"{expression}: {self.errors}\n{self.text()[:2000]}"
            self.browser.wait(0.05)
        return value

    def text(self, selector: str = "body") -> str:
        """Return the text of an element as it is seen: of a hidden one, or of none, nothing."""
        found = f"document.querySelector({json.dumps(selector)})"
        return self.value(f"(e => e?.checkVisibility() ? e.innerText : '')({found})")

    def upload(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, f"{selector}: not on the page"
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def click(self, selector: str) -> None:
        """Click the middle of an element, as a mouse does."""
        at = json.dumps(selector)
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({at}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.drag([(x, y)])

    def drag(self, places: list[tuple[float, float]]) -> None:
        """Press the mouse at the first place, move it to the others, and let go."""

        def mouse(kind: str, place: tuple[float, float]) -> None:
            self.call(
                "Input.dispatchMouseEvent",
                type=kind, x=place[0], y=place[1], button="left", buttons=1, clickCount=1,
            )  # fmt: skip

        mouse("mousePressed", places[0])
        for place in places[1:]:
            mouse("mouseMoved", place)
        mouse("mouseReleased", places[-1])

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, by its name, Windows' number for it, and the text that it types."""
        key_of = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **key_of)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key_of)

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """Write the page as PNG."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))

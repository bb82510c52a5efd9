"""A real browser for the tests of the explorer: Debian's chromium, driven by Playwright.

Where one of both is missing, a test is skipped with the reason; `make browser` does not skip.
"""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass
class Opened:
    """A page in the browser, and what it said and asked for meanwhile.

    Attributes:
        page: Playwright's page.
        complaints: Messages of the console that are warnings or errors, and uncaught errors.
        requests: Addresses that were asked for, the page's own left out.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def array(self, expression: str, dtype: str = "float32") -> np.ndarray[Any, Any]:
        """The value of a JavaScript expression that is a typed array of this kind."""
        text = self.page.evaluate(
            "(() => { const a = "
            + expression
            + "; const b = new Uint8Array(a.buffer, a.byteOffset,"
            " a.byteLength); let s = ''; for (let k = 0; k < b.length; k += 32768) s += "
            "String.fromCharCode(...b.subarray(k, k + 32768)); return btoa(s); })()"
        )
        return np.frombuffer(base64.b64decode(text), dtype=dtype)

    def wait_until(self, expression: str, *, seconds: float = 30) -> None:
        """Waits until a JavaScript expression is true.

        Playwright's own `wait_for_function` evaluates its text in the page once the first answer
        was no, which the page's policy forbids; `evaluate` does not.
        """
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text of the first element of a selector."""
        return str(self.page.text_content(selector))


def chromium() -> str | None:
    """Path of an installed Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless browser; skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("there is no chromium here")
    with sync_api.sync_playwright() as driver:
        # Root may not use Chromium's sandbox, and containers are short of /dev/shm.
        started = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started: Any, path: Path, *, fragment: str = "", **options: Any) -> Iterator[Opened]:
    """A page from disk in a fresh context, once it has drawn; options are those of a context."""
    context = started.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    page = context.new_page()
    here = Opened(page)
    own = path.resolve().as_uri()

    def note_request(request: Any) -> None:
        if not request.url.startswith((own, "data:", "blob:")):
            here.requests.append(request.url)

    page.on("request", note_request)
    page.on("pageerror", lambda error: here.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            message.type in ("error", "warning") and here.complaints.append(message.text)
        ),
    )
    try:
        page.goto(own + (f"#{fragment}" if fragment else ""))
        here.wait_until(
            "document.getElementById('mass').textContent"
            " || !document.getElementById('trouble').hidden"
        )
        yield here
    finally:
        context.close()

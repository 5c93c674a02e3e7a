"""Debian's Chromium, driven by Playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from sandbox.processes import install_debian

_FONT = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")


def find_chromium() -> str:
    """The path of Chromium, which is installed where it is missing, with a font that has Chinese."""
    install_debian(
        ["chromium", "fonts-noto-cjk"],
        lambda: shutil.which("chromium") is not None and _FONT.exists(),
        "Chromium",
    )
    found = shutil.which("chromium")
    assert found is not None
    return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a headless one."""
    with sync_playwright() as playwright:
        # Containers give its sandbox no namespaces, and 64 MB of /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        browser.close()


class Window:
    """A window of a browser with cookies of its own; `complaints` are what the browser reports:
    violations of the policy, errors of scripts, and requests that failed.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(**({"locale": "en-GB"} | options))
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def go(self, path: str) -> Page:
        """Open a page of the console."""
        self.page.goto(f"{self.url}/console{path}")
        return self.page

    def text(self) -> str:
        """The text of the page."""
        return self.page.inner_text("body")

    def close(self) -> None:
        self.context.close()

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

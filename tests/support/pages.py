"""Pages in a real browser: the one that is found here, what it says on its console, and pictures that are kept."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

ARTEFACTS = Path(os.environ.get("ATHANOR_ARTEFACTS") or Path(__file__).parents[2] / "out" / "screenshots")
"""Where screenshots stay."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@contextmanager
def a_browser():
    """A headless Chromium; skips, with the reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'athanor[dev]'")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)}; on Debian apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page that is open: what it said, asked for, and how wide it is."""

    def __init__(self, browser, address, width=1300, dark=False):
        scheme = "dark" if dark else "light"
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.said, self.asked, self.name = [], [], f"{width}-{scheme}"
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self._metrics = self.page.context.new_cdp_session(self.page)
        self._metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(address)
        self.page.wait_for_selector("html[data-drawn]", timeout=60_000)

    @property
    def processor_seconds(self):
        """What the page's thread has computed so far, however busy the computer is."""
        found = self._metrics.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in found if each["name"] == "TaskDuration")

    def keep(self, name):
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}-{self.name}.png", full_page=True)

    def overflow(self):
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

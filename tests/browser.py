"""Opens built pages in a headless browser: what they show, what they log, what they fetch.

Used by tests that look at pages; nothing here starts unless a browser and its driver are installed.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")

requires_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="looks at a page: needs chromium (or google-chrome) and chromedriver on the PATH",
)

_OPTIONS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage --hide-scrollbars
--allow-file-access-from-files""".split()
# The browser asks for accounts, updates and search suggestions by itself: all but this machine lies behind a proxy
# that does not answer, so that no name is looked up and nothing leaves.
_OPTIONS.append("--proxy-server=127.0.0.1:9")


@dataclass
class Page:
    """One open page."""

    driver: webdriver.Chrome

    def __post_init__(self):
        self._errors, self._requests = [], []

    def select(self, css: str):
        """Every element that the CSS selector matches."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def wait(self, condition, seconds: float = 15):
        """The first true value of ``condition()``; TimeoutException when there is none."""
        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def sliders(self) -> list:
        """The figure sliders of the page, once they are drawn."""
        self.wait(lambda: self.select(".figure-slider .noUi-handle"))
        return self.select(".figure-slider")

    def frame(self, slider) -> dict:
        """What a figure slider shows: its image's text, width in CSS pixels and source."""
        script = """
            const image = arguments[0].querySelector("img");
            return image?.complete && image.naturalWidth
                ? {alt: image.alt, width: image.getBoundingClientRect().width, src: image.src} : null;"""
        return self.wait(lambda: self.driver.execute_script(script, slider))

    def press(self, slider, key: str = Keys.ARROW_RIGHT) -> dict:
        """Press a key on the slider's handle; the frame that it then shows."""
        before = self.frame(slider)
        slider.find_element(By.CSS_SELECTOR, ".noUi-handle").send_keys(key)
        self.wait(lambda: self.frame(slider) != before)
        return self.frame(slider)

    def errors(self) -> list[str]:
        """Every error, failed request and uncaught exception that the page logged since it was opened."""
        entries = self.driver.get_log("browser")
        self._errors += [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
        return self._errors

    def requests(self) -> list[str]:
        """Every address that the page asked for since it was opened."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requests.append(message["params"]["request"]["url"])
        return self._requests

    def outside(self) -> list[str]:
        """The requests that left the page: neither a file nor this machine."""
        return [url for url in self.requests() if not _is_local(url)]

    def overflow(self) -> float:
        """By how many CSS pixels the page is wider than its window; 0 where nothing sticks out."""
        return self.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")

    def screenshot(self, path: Path, *, whole: bool = True) -> Path:
        """A picture of the whole page, or of the window, as PNG."""
        settings = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            settings["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", settings)["data"]
        path = Path(path)
        path.write_bytes(base64.b64decode(data))
        return path


@contextmanager
def open_page(
    path: Path | str,
    *,
    width: int = 1280,
    height: int = 900,
    mode: str = "light",
    options: Sequence[str] = (),
) -> Iterator[Page]:
    """A page open in a fresh headless browser, loaded and with its formulas set.

    Args:
        path: an HTML file, or an http(s) address.
        width: of the window in CSS pixels; below 600 the page sees a phone with two pixels per CSS pixel.
        height: of the window in CSS pixels.
        mode: ``"light"`` or ``"dark"``, as the reader's stored choice.
        options: more of the browser's command line.
    """
    address = str(path) if str(path).startswith("http") else Path(path).resolve().as_uri()
    settings = webdriver.ChromeOptions()
    settings.binary_location = BROWSER
    settings.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*_OPTIONS, *options, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            settings.add_argument(option)
        # Naming the driver keeps selenium from looking for one on the network, and from sending statistics.
        driver = webdriver.Chrome(options=settings, service=webdriver.ChromeService(DRIVER))
        try:
            driver.set_page_load_timeout(60)
            phone = width < 600
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1 + phone, "mobile": phone}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            choice = f'for (const key of ["mode", "theme"]) localStorage.setItem(key, "{mode}")'
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": choice})
            driver.get("about:blank")
            for log in ("browser", "performance"):  # what the browser did before the page
                driver.get_log(log)
            driver.get(address)
            driver.execute_script("return window.MathJax?.startup?.promise?.then(() => true)")
            yield Page(driver)
        finally:
            driver.quit()


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in ("localhost", "127.0.0.1")

"""Headless Chromium, for tests that open the pages as a reader would."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """One browser for all tests."""
    with open_chromium() as browser:
        yield browser


@contextmanager
def open_chromium(*more: str) -> Iterator[webdriver.Chrome]:
    """A browser without a network. Debian's packages chromium and chromium-driver bring it; CI may not do without.

    Args:
        more: of its options.
    """
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        assert not os.environ.get("CI"), "chromium and chromedriver are missing"
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A sandbox of its own is refused to root; no name but this machine resolves, so a page that asks the network says so in its log.
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", alone, *more):
        options.add_argument(word)
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        yield browser


@pytest.fixture
def browser(chromium) -> webdriver.Chrome:
    """The browser in a wide window and light colours, with an empty log."""
    chromium.get("about:blank")
    resize(chromium, 1280, 900)
    prefer(chromium, "light")
    errors(chromium)
    return chromium


def resize(browser: webdriver.Chrome, width: int, height: int) -> None:
    """Give the page so many CSS pixels; a window would not be as narrow as a phone."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    )


def prefer(browser: webdriver.Chrome, colours: str) -> None:
    """What prefers-color-scheme says: light or dark."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]})


def press(browser: webdriver.Chrome, *keys: str) -> None:
    """Type keys one after the other."""
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def errors(browser: webdriver.Chrome) -> list[str]:
    """What the page complained of in the console since this was last asked."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def screenshot(browser: webdriver.Chrome, file: Path) -> Path:
    """The whole page as a PNG, at its present width."""
    height = browser.execute_script("return document.documentElement.scrollHeight")
    width = browser.execute_script("return document.documentElement.clientWidth")
    resize(browser, width, min(height, 16_000))
    file.write_bytes(browser.get_screenshot_as_png())
    return file

"""The page of mistakes in a real browser: what is told is what the tables hold, and the keys go through the images."""

import json
import shutil

import pandas as pd
import pytest
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from analysis.mistakes.__main__ import app
from tests.browser import browser, chromium, errors, prefer, press, resize  # noqa: F401


@pytest.fixture(scope="module")
def folder(faces, tmp_path_factory):
    """What the command leaves of a run whose members disagree."""
    run = tmp_path_factory.mktemp("page") / "faces"
    shutil.copytree(faces.folder, run)
    result = CliRunner().invoke(app, ["--run", str(run), "--top", "3"])
    assert result.exit_code == 0, result.output
    return run / "mistakes"


@pytest.fixture
def opened(browser, folder):  # noqa: F811
    browser.get((folder / "index.html").as_uri())
    assert errors(browser) == []
    return browser


def shown(chrome):
    """The images that are shown, by their names in the data, in order."""
    cards = chrome.find_elements("css selector", "li.card:not([hidden])")
    return [card.find_element("css selector", ".soft").text for card in cards]


def current(chrome):
    (card,) = chrome.find_elements("css selector", "[aria-current=true]")
    return card.find_element("css selector", ".soft").text


def test_the_page_shows_the_errors_of_the_table_and_counts_as_the_tables_do(opened, folder):
    counts, table = json.loads((folder / "mistakes.json").read_text()), pd.read_csv(folder / "confident.csv")
    assert shown(opened) == list(table["photo"])
    assert counts["errors"] == len(table) and counts["disagreements"] == len(pd.read_csv(folder / "disagreement.csv"))
    text = opened.find_element("tag name", "main").text
    assert f"{counts['errors']} of {counts['images']} validation images" in text and f"disagree on {counts['disagreements']} images" in text
    sizes = opened.execute_script("""
        return Promise.all([...document.images].filter(image => !image.alt.startsWith("Heat map")).map(image => {
            image.loading = "eager";
            return image.decode().then(() => image.naturalWidth);
        }));
    """)
    assert len(sizes) == counts["errors"] + counts["disagreements"] and min(sizes) > 0


def test_the_keys_are_written_on_the_page_and_do_what_it_says(opened, folder):
    assert [key.text for key in opened.find_elements("css selector", ".keys kbd")] == ["j", "k", "↓", "↑", "f", "d"]
    table = pd.read_csv(folder / "confident.csv")
    names, apart = list(table["photo"]), list(pd.read_csv(folder / "disagreement.csv")["photo"])
    press(opened, "k")
    assert current(opened) == names[0]
    press(opened, "j", Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert current(opened) == names[1]
    alike = table[(table["true"] == table["true"][1]) & (table["predicted"] == table["predicted"][1])]
    press(opened, "f")
    assert shown(opened) == list(alike["photo"]) and current(opened) == names[1]
    press(opened, *["j"] * len(names))
    assert current(opened) == alike["photo"].iloc[-1], "a hidden image is passed over, and the last is the end"
    press(opened, "f")
    assert shown(opened) == names
    press(opened, "d")
    assert shown(opened) == apart and current(opened) == apart[0]
    press(opened, "d")
    assert shown(opened) == names
    assert errors(opened) == []


def test_buttons_do_what_the_keys_do_on_a_phone_that_shows_all(opened, folder):
    resize(opened, 390, 844)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
    button = opened.find_element("id", "apart")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert shown(opened) == list(pd.read_csv(folder / "disagreement.csv")["photo"])
    opened.find_element("id", "alike").click()
    assert shown(opened)[0] == current(opened)
    resize(opened, 1280, 900)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 1280

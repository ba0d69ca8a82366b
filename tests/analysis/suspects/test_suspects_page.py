"""The page of suspects in a real browser: what is accepted is what the saved table says."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from analysis.evaluation.label_issues import Findings, Suspect
from analysis.members.trials import Sample, load_runs
from analysis.pages.page import THUMBNAIL
from analysis.suspects.__main__ import app
from analysis.suspects.page import SHOWN, groups_names, make_cards, page
from tests.browser import browser, chromium, errors, prefer, press, resize  # noqa: F401
from trainables.data.corrections import correct
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig


@pytest.fixture(scope="module")
def file(planted, tmp_path_factory):
    """The page of the planted run."""
    folder = tmp_path_factory.mktemp("page") / "planted"
    shutil.copytree(planted.made.folder, folder)
    assert CliRunner().invoke(app, ["--run", str(folder)]).exit_code == 0
    return folder / "suspects/index.html"


@pytest.fixture
def opened(browser, file, tmp_path):  # noqa: F811
    """The page, with nothing decided and a folder for what it saves."""
    return open_page(browser, file, tmp_path)


def open_page(chrome, file, downloads):
    chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    chrome.get(file.as_uri())
    # What the test before decided has now and then outlived being cleared once.
    while chrome.execute_script("return localStorage.length"):
        chrome.execute_script("localStorage.clear()")
        chrome.get("about:blank")
        chrome.get(file.as_uri())
    assert errors(chrome) == []
    return chrome


def count(chrome):
    return chrome.find_element("id", "count").text


def current(chrome):
    (card,) = chrome.find_elements("css selector", "[aria-current=true]")
    return int(card.text.split(".")[0])


def saved(folder):
    """The file that the page saves, when it is whole."""
    end = time.monotonic() + 10
    while not (folder / "relabel.csv").is_file() and time.monotonic() < end:
        time.sleep(0.02)
    return folder / "relabel.csv"


@pytest.mark.parametrize(("accept", "reject", "undo"), [("a", "r", "u"), (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.BACKSPACE)])
def test_keys_decide_and_take_back(opened, accept, reject, undo):
    assert count(opened) == "0 accepted, 0 rejected, 4 to go"
    press(opened, accept, reject, accept)
    assert count(opened) == "2 accepted, 1 rejected, 1 to go"
    assert current(opened) == 4
    press(opened, undo)
    assert (count(opened), current(opened)) == ("1 accepted, 1 rejected, 2 to go", 3)
    press(opened, undo, undo, undo)
    assert (count(opened), current(opened)) == ("0 accepted, 0 rejected, 4 to go", 1)
    assert errors(opened) == []


@pytest.mark.parametrize(("down", "up"), [("j", "k"), (Keys.ARROW_DOWN, Keys.ARROW_UP)])
def test_keys_move_to_another_suspect_and_no_further_than_the_ends(opened, down, up):
    press(opened, up)
    assert current(opened) == 1
    press(opened, down, down, up)
    assert current(opened) == 2
    press(opened, down, down, down, down)
    assert current(opened) == 4


def test_a_decision_can_be_changed(opened):
    press(opened, "a", "k", "r")
    assert count(opened) == "0 accepted, 1 rejected, 3 to go"


def test_browser_shortcuts_are_left_alone(opened):
    ActionChains(opened).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    assert count(opened) == "0 accepted, 0 rejected, 4 to go"


def test_buttons_do_what_the_keys_do(opened):
    resize(opened, 390, 844)
    cards = opened.find_elements("class name", "card")
    cards[1].find_element("css selector", "[data-choice=accepted]").click()
    cards[2].find_element("css selector", "[data-choice=rejected]").click()
    assert count(opened) == "1 accepted, 1 rejected, 2 to go"
    pressed = [button.text for button in opened.find_elements("css selector", "[aria-pressed=true]")]
    assert pressed == ["Accept", "Reject"]
    opened.find_element("id", "undo").click()
    assert count(opened) == "1 accepted, 0 rejected, 3 to go"


def test_decisions_outlive_the_page(opened, file):
    press(opened, "a", "r")
    opened.get("about:blank")
    opened.get(file.as_uri())
    assert (count(opened), current(opened)) == ("1 accepted, 1 rejected, 2 to go", 3)
    press(opened, "u")
    assert count(opened) == "1 accepted, 0 rejected, 3 to go"


def test_what_a_browser_kept_of_something_else_is_passed_over(opened, file):
    for kept in ("{", "7", '[["x"],3,null]'):
        opened.execute_script("localStorage.setItem('suspects of planted', arguments[0])", kept)
        opened.refresh()
        assert count(opened) == "0 accepted, 0 rejected, 4 to go"
    assert errors(opened) == []


def test_all_accepted_the_saved_table_gives_the_labels_that_the_models_see(opened, planted, tmp_path):
    press(opened, "a", "a", "a", "a", "s")
    images = planted.made.images
    corrected = correct(str(saved(tmp_path)), images, {})
    expected = images.labels.copy()
    for index, name in enumerate(images.ids):
        if (gender := planted.groups.get(name.split("/")[0])) is not None:
            expected[index, 1] = images.scheme.targets[1].values.index(gender)
    swapped = [images.ids.index(name) for name in planted.swapped]
    expected[swapped, 0] = expected[swapped[::-1], 0]
    np.testing.assert_array_equal(corrected.labels, expected)
    assert corrected.left_out == ()
    assert "relabel.csv holds 4 accepted" in opened.find_element("id", "status").text
    assert errors(opened) == []


def test_the_saved_table_holds_what_was_accepted_and_nothing_else(opened, planted, tmp_path):
    cards = opened.find_elements("class name", "card")
    names = [card.find_element("css selector", ".head .soft").text for card in cards]
    (swap,) = [index for index, name in enumerate(names) if name.startswith("two images swapped")]
    press(opened, *["j"] * swap, "a", "s")
    rows = [line.split(",") for line in saved(tmp_path).read_text().splitlines()]
    assert rows[0] == ['"photo"', '"attribute"', '"value"', '"was"']
    assert sorted(row[0].strip('"') for row in rows[1:]) == sorted(planted.swapped)
    assert sorted((row[2], row[3]) for row in rows[1:]) == [('"absent"', '"incorrect"'), ('"incorrect"', '"absent"')]


def test_with_nothing_accepted_nothing_is_saved(opened, tmp_path):
    press(opened, "r", "s")
    assert opened.find_element("id", "status").text.startswith("Nothing to save yet")
    assert list(tmp_path.glob("*.csv*")) == []


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(opened, width):
    resize(opened, width, 800)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    buttons = opened.find_elements("tag name", "button")
    assert min(button.size["height"] for button in buttons) >= 44


def test_the_page_is_dark_where_the_reader_prefers_it(opened):
    def ground():
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = ground()
    prefer(opened, "dark")
    assert (light, ground()) == ("rgb(255, 255, 255)", "rgb(16, 23, 30)")


def test_pictures_are_small_upright_and_inside_the_page(opened, planted):
    sizes = opened.execute_script(
        "return Promise.all([...document.images].map(image => { image.loading = 'eager';"
        " return image.decode().then(() => [image.naturalWidth, image.naturalHeight]) }))"
    )
    width, height = Image.open(planted.made.images.root / planted.swapped[0]).size
    assert len(sizes) == 2 * (3 * 7 + 2), "each with its heat map"
    assert {tuple(size) for size in sizes} == {(width, height)}
    assert max(width, height) <= THUMBNAIL


HOSTILE = ['<script>alert("1")</script>', 'a "quoted", name', "=1+1", "</script><img src=x onerror=alert(2)>", "{{ 7 * 7 }}"]


@pytest.fixture
def hostile(tmp_path):
    """Images of a table whose attribute, values, groups and files have names that a page may trip over."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ['image,person,"<b>kind</b>"']
    for index, name in enumerate(HOSTILE):
        for shot in range(2):
            image = f"{name.replace('/', '')} {shot}.png"
            Image.new("RGB", (400, 200), (30 * index, 90, 60 * shot)).save(folder / image)
            value = '"<i>x</i>, ""y"""' if index % 2 else "&amp;"
            lines.append(",".join([*('"' + text.replace('"', '""') + '"' for text in (image, name)), value]))
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return read_images(folder / "photos.csv", DataConfig(target="*"))


def test_names_of_files_groups_and_labels_are_text_and_come_back_as_they_are(browser, hostile, tmp_path):  # noqa: F811
    values = hostile.scheme.targets[0].values
    suspects = []
    for index in range(len(HOSTILE)):
        rows = np.flatnonzero(hostile.groups == index)
        given = values[hostile.labels[rows[0], 0]]
        other = next(value for value in values if value != given)
        images = tuple(hostile.ids[row] for row in rows)
        suspects.append(Suspect(images, index, "<b>kind</b>", given, other, 0.9, "person"))
    sample = Sample(hostile.ids, hostile.groups, hostile.labels, hostile.scheme, np.full(len(hostile), "fold 0"))
    cards, gone = make_cards(suspects, hostile, groups_names([sample], hostile))
    assert gone == ()
    file = tmp_path / "index.html"
    file.write_bytes(page("<u>run</u> & 'co'", Findings(tuple(suspects), (), (), (), {}), cards, ["<s>limit</s>"]))
    open_page(browser, file, tmp_path)
    text = browser.find_element("tag name", "body").text
    for name in [*HOSTILE, "<b>kind</b>", *values, "<u>run</u> & 'co'", "<s>limit</s>"]:
        assert name in text
    assert browser.find_elements("css selector", "main b b, main i i, main s, header u, main script") == []
    sizes = browser.execute_script("return [...document.images].map(image => image.src.slice(0, 23))")
    assert set(sizes) == {"data:image/jpeg;base64,"}
    press(browser, *["a"] * len(HOSTILE), "s")
    assert (correct(str(saved(tmp_path)), hostile, {}).labels == 1 - hostile.labels).all()
    assert errors(browser) == []


def test_of_a_group_with_many_images_the_first_are_shown_and_all_corrected(planted):
    runs = load_runs([planted.made.folder])
    images = planted.made.images
    shown = tuple(images.ids[:20])
    suspect = Suspect(shown, 0, "gender", "male", "female", 0.5, "person")
    ((card,), _) = make_cards([suspect], images, groups_names([runs.learned, runs.holdout], images))
    assert (len(card.pictures), card.more) == (SHOWN, 20 - SHOWN)
    assert tuple(row.image for row in card.corrections) == shown


def test_a_group_is_corrected_by_name_where_the_name_means_just_these_images(planted):
    runs, images = load_runs([planted.made.folder]), planted.made.images
    groups = groups_names([runs.learned, runs.holdout], images)
    group = int(images.groups[0])
    own = tuple(name for name, other in zip(images.ids, images.groups, strict=True) if other == group)
    given = images.scheme.targets[1].values[images.labels[0, 1]]
    other = images.scheme.targets[1].values[1 - images.labels[0, 1]]
    for some, named in ((own, (images.names[0],)), (own[1:], own[1:])):
        ((card,), _) = make_cards([Suspect(some, group, "gender", given, other, 0.5, "person")], images, groups)
        assert tuple(row.image for row in card.corrections) == named


def test_a_name_that_leads_out_of_the_data_is_not_opened(planted, tmp_path):
    images = planted.made.images
    outside = "../../../outside.jpg"
    Image.new("RGB", (8, 8)).save((images.root / outside).resolve())
    suspect = Suspect((outside,), 0, "mask", "worn", "absent", 0.5, "photo")
    ((card,), (gone,)) = make_cards([suspect], images, {0: "somebody"})
    assert card.pictures[0].source == ""
    assert gone.names == (outside,)

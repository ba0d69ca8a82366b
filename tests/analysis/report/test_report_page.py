import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from analysis.evaluation.advice import Advice, Learning, write_advice
from analysis.evaluation.ceiling import Ceiling, TargetNoise
from analysis.evaluation.elsewhere import Note, Own, add_note
from analysis.evaluation.learning import Curve, Step
from analysis.evaluation.look.facts import FILE, ClassFacts, Facts, Finding, TargetFacts, write_facts
from analysis.evaluation.needs import Need
from analysis.evaluation.search.probes import ProbeRow, ProbeTable, write_probes
from analysis.evaluation.search.reading import read_search, read_searches
from analysis.mistakes.__main__ import app as mistakes
from analysis.pages.model_card import CARD
from analysis.pages.parts import Heading, Picture, Words
from analysis.report.__main__ import app
from analysis.report.page import html
from analysis.report.sections import report
from analysis.report.topics.search import TOPICS
from analysis.suspects.__main__ import app as suspects
from tests.browser import browser, chromium, errors, prefer, resize  # noqa: F401
from tests.messages import missing
from trainables.config import TrialConfig
from trainables.record import (
    Decision,
    Result,
    RunCard,
    end_record,
    start_record,
    trial_folder,
    write_decisions,
    write_json,
    write_reports,
    write_result,
    write_run,
)

HOSTILE = ("<script>window.hacked = 1</script>", "$x^")  # names of classes, as untrusted as any
SPACE = """
run: {trials: 40, epochs: 6}
task: {choice: [joint, heads]}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 4.0], when: {loss/name: focal}}
optimizer: {lr: {float: [1.0e-5, 1.0e-2], log: true}}
"""
CAT = ClassFacts("cat", 6, 3, 6, (90.0, 90.0, 90.0), (40.0, 40.0, 40.0))
FACTS = Facts(
    *("faces", "people", 6, 3, True, 6, 6, 1.0, ()),
    targets=(TargetFacts("animal", "classes", (CAT,), None),),
    joint=(),
    absent=0,
    grids=(),
    numbers=(),
    sizes=(),
    formats=(("JPEG", 6),),
    alike=(),
    pairs=0,
    complete=True,
    findings=(Finding("blank", 1, "1 image of one colour", ("a.jpg",), "Remove it."),),
)
SECTIONS = ["answer", "advice", *TOPICS, "calibration", "mistakes", "shift", "look", "suspects", "leaks", "settings"]
PICTURES = {"history", "curves", "parallel", "importance", "choices", "numbers", "fidelity", "cost"}
STATES = ("finished", "stopped", "interrupted", "failed")


def write_search(folder, count, seed=0):
    """A run of records alone: no images, no weights."""
    rng, attributes = np.random.default_rng(seed), (("shape", HOSTILE, ()), ("size", ("small", "large"), ()))
    write_run(folder, RunCard(folder.name, "hand", "photos", (), 0, "abc", attributes, 6, count, "python -m tuner.run --space hand"))
    (folder / "space.yaml").write_text(SPACE)
    for number in range(count):
        values = {"task": str(rng.choice(["joint", "heads"])), "optimizer": {"lr": float(10 ** rng.uniform(-5, -2))}, "epochs": 6}
        values["model"] = {"backbone": "test_efficientnet"}
        values["loss"] = {"name": "focal", "gamma": float(rng.uniform(0.5, 4))} if rng.random() < 0.6 else {"name": "cross_entropy"}
        state, place = STATES[number % 4], trial_folder(folder, number)
        epochs = 6 if state == "finished" else 2
        curve = np.sort(rng.uniform(0.1, 0.8, epochs))
        reports = [{"epoch": epoch, "score": float(score), "seconds": 60.0} for epoch, score in enumerate(curve, start=1)]
        start_record(place, TrialConfig.from_values(values))
        write_reports(place, reports if state != "failed" else [])
        write_decisions(place, [Decision(2, float(curve[1]), number, 0.3, state == "finished")] if state != "failed" else [])
        versions = {"torch": "2.13.0"}
        write_result(place, Result(state, "as it was", epochs if state != "failed" else 0, "abc", "CPU (x, AVX2)", "c0ffee", versions))
    rungs = [
        {"epoch": 2, "backbone": None, "trials": 9, "correlation": 0.6},
        {"epoch": 2, "backbone": "b", "trials": 1, "correlation": None},
    ]
    write_json(folder / "fidelity.json", {"rungs": rungs})
    return folder


def write_findings(folder):
    """What the other commands leave in a run's folder."""
    score = {"score": 0.7, "interval": [0.6, 0.8], "accuracy": 0.75, "target_scores": {"shape": 0.9, "size": 0.8}, "gain": 0.01}
    answer = {**score, "gain_interval": [-0.01, 0.03], "distinguishable": False}
    bins = [{"low": 0.4, "high": 0.6, "confidence": 0.5, "accuracy": 0.4, "photos": 10}]
    member = {"name": f"{folder.name}/0", "weight": 1.0, "valid_score": 0.7, "holdout_score": 0.6, "like_the_best": True}
    shift = {
        "attribute": "shape",
        "trained": [0.5, 0.5],
        "predicted": [0.6, 0.4],
        "bbse": [0.64, 0.36],
        "em": [0.61, 0.39],
        "em_intervals": [[0.5, 0.7], [0.3, 0.5]],
    }
    rows = [ProbeRow("test_efficientnet", HOSTILE[0], "32x32", "linear", 0, 0.4, (0.3, 0.5), 3.0, 1.5)]
    rows.append(ProbeRow("test_resnet", "photos/own.safetensors", "32x32", "k-NN", None, 0.2, (0.1, 0.3), 2.0, 1.0))
    write_probes(folder, ProbeTable("f1_macro", 0.1, rows))
    steps = tuple(Step(share, round(80 * share), 7 * 80 * share, 0.3 + 0.1 * share, (0.2, 0.5)) for share in (0.25, 0.5, 1.0))
    curve = Curve(steps, 0.05, (0.01, 0.09), 0.04, (0.01, 0.07))
    ceiling = Ceiling(0.96, (0.94, 0.98), (TargetNoise("size", True, 0.02, (0.01, 0.03)),))
    needed = (Need(f"{HOSTILE[0]}, small", 5, 0.2, 0.5, 0.1),)
    learning = Learning("linear heads on frozen features of test_efficientnet at 32x32", curve)
    write_advice(folder, Advice("f1_macro", "classes", f"{folder.name}/0", 0.7, learning, ceiling, (), needed))
    (folder / "ensemble").mkdir()
    (folder / "ensemble" / CARD).write_text("# Model card")
    values = {
        "vote": "soft",
        "answer": "soft",
        "answers": {"best single": {**answer, "gain": 0.0}, "soft": answer},
        "members": [member],
        "holdout": {"photos": 80, "people": 20},
        "confusion": np.full((4, 4), 5).tolist(),
        "calibration": {"expected": 0.1, "bins": bins},
        "shift": [shift],
        "settings": {"top": 3},
    }
    write_json(folder / "ensemble" / "scores.json", values)
    (folder / "ensemble" / "per_class.csv").write_text(
        f'class,groups,images,precision,recall,F1\n"{HOSTILE[0]}, small",5,20,,0.5,0\nNA,5,20,0.5,0.5,0.5\n'
    )
    own = Own(0.7, (0.6, 0.8))
    add_note(folder, Note("mine.csv", "", "", "2026-11-30", HOSTILE[0], "f1_macro", "macro F1", 0.5, own, -0.2, ("shape",)))
    (folder / "mistakes").mkdir()
    (folder / "mistakes" / "confident.csv").write_text("photo,person,true,predicted,probability\n" + "a.png,1,small,large,0.99\n" * 30)
    Image.new("RGB", (2400, 600), "grey").save(folder / "mistakes" / "confident.png")
    (folder / "suspects").mkdir()
    (folder / "look").mkdir()
    write_facts(folder / FILE, FACTS)
    (folder / "suspects" / "suspects.csv").write_text(
        "rank,kind,photo,person,attribute,given,suggested,score\n1,photo,a.png,1,size,small,large,0.9\n"
    )
    (folder / "leaks").mkdir()
    meaning = [{"words": "1 pair is across splits.", "warning": True}, {"words": "These runs are split by group.", "warning": False}]
    write_json(folder / "leaks" / "leaks.json", {"meaning": meaning})
    (folder / "leaks" / "pairs.csv").write_text("photo,other_photo,across\na.png,b.png,True\n")
    Image.new("RGB", (600, 300), "grey").save(folder / "leaks" / "pairs.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_findings(write_search(home / "runs" / "faces", 24))
    return home


@pytest.fixture(scope="module")
def page(home):
    """The report of a run about which everything is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        result = call("--run", "faces")
    assert result.exit_code == 0, result.output
    return home / "runs" / "faces" / "report" / "index.html"


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A folder with a copy of the run in runs/, before any report."""
    shutil.copytree(home / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("report"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, list(words))


def refused(result):
    """The one message of a refusal."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


# The command


def test_the_command_writes_one_page_and_a_file_for_each_picture(page):
    names = PICTURES | {"answers", "confusion", "confusion-0", "confusion-1", "reliability", "look-counts-1"}
    assert {file.name for file in page.parent.iterdir()} == {"index.html", *(f"{name}.png" for name in names)}
    for name in names:
        with Image.open(page.parent / f"{name}.png") as picture:
            assert min(picture.size) > 100
    text = page.read_text()
    assert re.findall(r'<section id="([^"]+)"', text) == SECTIONS
    assert set(re.findall(r'<figure id="figure-([^"]+)"', text)) == names


def test_the_page_needs_nothing_but_itself_and_leads_to_its_sisters(page):
    text = page.read_text()
    assert set(re.findall(r'(?:src|href|action)="([^"#]*)', text)) == {"", "data:,", "../leaks/pairs.png", f"../ensemble/{CARD}"}
    assert not re.findall(r"@import|url\((?!#)", text)
    assert len(text) < 3_000_000


def test_the_same_records_give_the_same_page(home, page):
    assert html("faces", report([read_search(home / "runs" / "faces")])) == page.read_bytes()


def test_what_is_not_known_yet_is_named_with_the_command_that_finds_it(here):
    for name in ("ensemble", "mistakes", "look", "suspects", "leaks"):
        shutil.rmtree(here / "runs/faces" / name)
    (here / "runs/faces/advice.json").unlink()
    (here / "runs/faces/fidelity.json").unlink()
    search = read_search(Path("runs/faces"))
    sections = {section.id: section.parts for section in report([search])}
    commands = {name: part.command for name, parts in sections.items() for part in parts if isinstance(part, Words) and part.command}
    assert commands == {
        "answer": "python -m analysis.ensemble --run faces",
        "advice": "python -m analysis.advise --run faces",
        "fidelity": "python -m tuner.run --resume faces",
        "calibration": "python -m tuner.run --resume faces",
        "mistakes": "python -m analysis.mistakes --run faces",
        "shift": "python -m analysis.ensemble --run faces",
        "look": "python -m tuner.look --run faces",
        "suspects": "python -m analysis.suspects --run faces",
        "leaks": "python -m analysis.leaks --run faces",
    }
    best = max(search.scored, key=lambda trial: trial.score)
    assert not missing(sections["answer"][0].text, f"faces/{best.number}: macro F1 {best.score:.3f}", "validation")
    assert not any(isinstance(part, Picture) for part in sections["answer"])


def test_a_search_without_probes_says_so(tmp_path):
    sections = {section.id: section.parts for section in report([read_search(write_search(tmp_path / "alone", 4))])}
    (words,) = sections["probes"]
    assert words.tone == "missing" and not missing(words.text, "run/probe")


def test_that_an_answer_is_no_better_than_guessing_is_shown_beside_its_score(here):
    file = here / "runs/faces/ensemble/scores.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "findings": ["The answer is always large."]}))
    lead, warning, *_ = report([read_search(here / "runs/faces")])[0].parts
    assert lead.tone == "lead" and (warning.tone, warning.text) == ("warning", "The answer is always large.")


def test_a_run_elsewhere_is_called_by_its_place_in_commands(tmp_path):
    search = read_search(write_search(tmp_path / "elsewhere", 4))
    commands = [part.command for section in report([search]) for part in section.parts if isinstance(part, Words) and part.command]
    assert commands and all(command.endswith(f" {tmp_path}/elsewhere") for command in commands)


def test_a_run_without_a_space_says_that_what_varied_is_not_known(here):
    (here / "runs/faces/space.yaml").unlink()
    sections = {section.id: section.parts for section in report([read_search(here / "runs/faces")])}
    for name in ("parallel", "importance", "values"):
        (words,) = sections[name]
        assert not missing(words.text, "faces", "space.yaml")


@pytest.mark.parametrize("word", ["significant", "proven"])  # today's, and that of earlier versions
def test_targets_with_a_significant_prior_shift_are_named_and_their_answers_pointed_to(here, word):
    file = here / "runs/faces/ensemble/scores.json"
    found = json.loads(file.read_text())
    found["shift"] = [found["shift"][0] | {"attribute": name, word: name == "size"} for name in ("shape", "size")]
    file.write_text(json.dumps(found))
    sections = {section.id: section.parts for section in report([read_search(here / "runs/faces")])}
    differ, alike = sections["shift"][:2]
    assert "size" in differ.text and "corrected.csv" in differ.text and differ.tone == "warning"
    assert "shape" in alike.text and alike.tone == "plain"


def test_the_estimated_priors_of_an_earlier_version_are_those_that_its_intervals_are_of(here):
    file = here / "runs/faces/ensemble/scores.json"
    found = json.loads(file.read_text())
    new = found["shift"][0]
    found["shift"] = [new, {name: value for name, value in new.items() if name != "em_intervals"} | {"intervals": [[0.6, 0.7], [0.3, 0.4]]}]
    file.write_text(json.dumps(found))
    sections = {section.id: section.parts for section in report([read_search(here / "runs/faces")])}
    text = str(sections["shift"])
    assert "61.0%" in text and "64.0%" in text and "60.0% to 70.0%" in text


def test_trials_with_weights_are_asked_how_sure_they_are_and_pictures_of_an_earlier_report_go(faces, tmp_path, monkeypatch):
    shutil.copytree(faces.folder, tmp_path / "runs" / "faces")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/faces/report"
    folder.mkdir()
    (folder / "history-more.png").write_bytes(b"of an earlier report")
    assert call("--run", "faces", "--run", "runs/faces").exit_code == 0  # one run, named twice
    text = (folder / "index.html").read_text()
    assert re.search(r"Trial faces/\d on validation: confidence and accuracy differ by \d+\.\d percentage points", text)
    assert {file.name for file in folder.glob("*.png")} == {f"{name}.png" for name in ("history", "curves", "cost", "reliability")}


def test_the_report_counts_what_the_pages_count_that_it_links(planted, tmp_path, monkeypatch):
    shutil.copytree(planted.made.folder, tmp_path / "runs" / "planted")
    monkeypatch.chdir(tmp_path)
    for command in (mistakes, suspects):
        result = CliRunner().invoke(command, ["--run", "planted"])
        assert result.exit_code == 0, result.output
    folder = tmp_path / "runs/planted"
    (sections,) = [{section.id: section.parts for section in report([read_search(folder)])}]
    for name, informative in (
        ("mistakes", r"([\d,]+ of [\d,]+ validation images)"),
        ("suspects", r"(\d+) label issues|Label issues: (\d+)"),
    ):
        words = sections[name][0]
        assert words.link == f"../{name}/index.html" and (folder / "report" / words.link).resolve().is_file()
        in_page = re.search(informative, (folder / name / "index.html").read_text())
        assert set(re.search(informative, words.text).groups()) == set(in_page.groups()) and len(set(in_page.groups()) - {None}) == 1


def test_several_runs_stand_side_by_side_under_their_names(here):
    folders = [here / "runs/faces", write_search(here / "runs/more", 8, seed=1)]
    sections = {section.id: section.parts for section in report(read_searches(folders))}
    for name in TOPICS:
        assert [part.text for part in sections[name] if isinstance(part, Heading)] == ["faces", "more"]
    names = [part.name for parts in sections.values() for part in parts if isinstance(part, Picture)]
    assert {f"{name}-{run}" for name in PICTURES - {"importance"} for run in ("faces", "more")} <= set(names)
    assert len(names) == len(set(names))


def test_pictures_of_runs_with_like_or_odd_names_stay_apart(tmp_path):
    folders = [write_search(tmp_path / name, 4) for name in ("one/faces", "two/faces", 'odd " <name>')]
    pictures = [part for section in report(read_searches(folders)) for part in section.parts if isinstance(part, Picture)]
    names = [part.name for part in pictures]
    assert len(names) == len(set(names)) and {"history-faces-1", "history-faces-2", "history-odd____name_"} <= set(names)


def test_damaged_records_are_counted_named_and_the_others_reported(here):
    (trial_folder(here / "runs/faces", 2) / "config.json").write_text("{")
    (trial_folder(here / "runs/faces", 4) / "reports.jsonl").write_text("[]\n")
    (here / "runs/faces/fidelity.json").write_text('[{"epoch": "two"}]')
    (here / "runs/faces/probe.json").write_text('{"rows": 3}')
    (here / "runs/faces/advice.json").write_text('{"trial": 3}')
    (here / "runs/faces/ensemble/scores.json").write_text('{"answers": 3}')
    (here / "runs/faces/mistakes/confident.csv").write_text("")
    (here / "runs/faces/leaks/leaks.json").write_text('{"meaning": [1]}')
    sections = report([read_search(here / "runs/faces")])
    warning = sections[-1].parts[0]
    assert warning.tone == "warning" and warning.text.startswith("8 damaged files ")
    files = ("advice.json", "fidelity.json", "probe.json", "ensemble/scores.json", "mistakes/confident.csv", "leaks/leaks.json")
    for name in ("trials/2", "trials/4", *files):
        assert f"faces: {name} (" in warning.text
    assert "\n" not in warning.text
    assert sections[2].parts[0].text.startswith("22 trials")


def test_a_thousand_trials_make_a_page_that_still_opens(tmp_path):
    folder = write_search(tmp_path / "many", 4)
    search = read_search(folder)
    many = [trial.__class__(**{**vars(trial), "number": number}) for number, trial in enumerate(search.trials * 250)]
    text = html("many", report([search.__class__(**{**vars(search), "trials": tuple(many)})])).decode()
    assert len(text) < 3_000_000
    assert "and 960 more" in text
    assert "730 curves, 400 are drawn" in text


# Refusals


def test_runs_in_which_nothing_has_a_score_are_all_named(here):
    for name in ("empty", "failed"):
        write_search(here / "runs" / name, 0)
    place = trial_folder(here / "runs" / "failed", 0)
    start_record(place, TrialConfig.from_values({"epochs": 2, "optimizer": {"lr": 0.1}, "model": {"backbone": "test_efficientnet"}}))
    write_result(place, Result("interrupted", "", 0, "abc", "", ""))
    end_record(place, "failed", "it broke")
    message = refused(call("--run", "empty", "--run", "faces", "--run", "failed"))
    assert not missing(message, "empty: ", "failed: ", "1 failed", "python -m tuner.run --resume failed")


# The page, as a reader opens it


def luminance(colour):
    """Of what the browser calls a colour, such as rgb(1, 2, 3)."""
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    return np.dot([part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts], [0.2126, 0.7152, 0.0722])


def contrasts(opened):
    """How each piece of text, on the page and in its pictures, stands out from the paper."""
    colours = opened.execute_script("""
        const texts = [...document.querySelectorAll("p, td, th, caption, figcaption, a, h1, h2, summary")];
        const drawn = [...document.querySelectorAll("figure:not([id^=figure-confusion]) svg text")];
        return [...texts.map(one => getComputedStyle(one).color), ...drawn.map(one => getComputedStyle(one).fill)];
    """)
    paper = luminance(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(colours) > 100
    found = []
    for colour in set(colours):
        low, high = sorted((luminance(colour), paper))
        found.append((high + 0.05) / (low + 0.05))
    return found


@pytest.fixture
def opened(browser, page):  # noqa: F811
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    return browser


def test_every_picture_is_there_and_has_a_size(opened):
    sizes = opened.execute_script("""
        const shown = [...document.querySelectorAll("figure svg")].map(one => one.getBoundingClientRect());
        return shown.map(box => [box.width, box.height]);
    """)
    assert len(sizes) == len(PICTURES) + 6  # of the answer, its confusions, its calibration and the images
    assert all(width > 250 and height > 50 for width, height in sizes)
    assert errors(opened) == []


def test_names_of_classes_are_text_and_never_run(opened):
    assert opened.execute_script("return window.hacked") is None
    assert f"{HOSTILE[0]}, small" in opened.find_element(By.ID, "answer").text
    assert HOSTILE[1] in opened.find_element(By.ID, "figure-confusion").get_attribute("textContent")
    assert errors(opened) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_and_on_a_phone_nothing_is_cut_off(opened, width):
    resize(opened, width, 844)
    opened.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    cut = "return [...document.querySelectorAll('.wide, figure, pre')].filter(one => one.scrollWidth > one.clientWidth).length"
    assert width > 390 or opened.execute_script(cut) == 0
    assert opened.execute_script("return document.querySelector('#figure-confusion svg').getBoundingClientRect().right") <= width
    assert errors(opened) == []


def test_a_phone_has_the_answer_on_its_first_screen_and_the_contents_folded(opened):
    resize(opened, 390, 844)
    opened.refresh()
    ends = "return [...document.querySelectorAll('#answer p')].slice(0, 3).map(one => one.getBoundingClientRect().bottom)"
    assert max(opened.execute_script(ends)) < 844
    assert not any(link.is_displayed() for link in opened.find_elements(By.CSS_SELECTOR, "nav a"))
    opened.find_element(By.CSS_SELECTOR, "nav summary").click()
    assert all(link.is_displayed() for link in opened.find_elements(By.CSS_SELECTOR, "nav a"))


def test_what_a_phone_reads_is_not_smaller_than_it_can_be_read(opened):
    resize(opened, 390, 844)
    sizes = opened.execute_script("""
        const drawn = [...document.querySelectorAll("figure:not([id^=figure-confusion]) svg text")];
        const captions = [...document.querySelectorAll("figcaption, caption")].map(one => parseFloat(getComputedStyle(one).fontSize));
        return [Math.min(...captions), Math.min(...drawn.map(one => one.getBoundingClientRect().height))];
    """)
    assert sizes[0] >= 14 and sizes[1] >= 7


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_stands_out_from_the_paper_in_the_colours_that_the_reader_prefers(opened, colours):
    prefer(opened, colours)
    paper = luminance(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.5) == (colours == "light")
    assert min(contrasts(opened)) >= 4.5


def test_the_colours_change_by_keyboard_and_stay_changed(opened):
    keys = ActionChains(opened)
    keys.send_keys(Keys.TAB).perform()
    assert opened.switch_to.active_element.text == "Skip to the answer"
    keys.send_keys(Keys.TAB).perform()
    button = opened.switch_to.active_element
    assert button.text == "Dark colours"
    before = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    keys.send_keys(Keys.ENTER).perform()
    assert button.text == "Light colours"
    assert luminance(opened.execute_script("return getComputedStyle(document.body).backgroundColor")) < 0.1 < luminance(before)
    assert min(contrasts(opened)) >= 4.5
    opened.refresh()
    assert opened.find_element(By.ID, "theme").text == "Light colours"
    assert errors(opened) == []


def test_the_contents_lead_to_every_section_and_no_id_is_given_twice(opened):
    links = [link.get_attribute("href").partition("#")[2] for link in opened.find_elements(By.CSS_SELECTOR, "nav a")]
    assert links == SECTIONS
    ids = opened.execute_script("return [...document.querySelectorAll('[id]')].map(one => one.id)")
    assert set(links) <= set(ids) and len(ids) == len(set(ids))


def test_long_tables_open_by_keyboard(opened):
    summary = opened.find_element(By.XPATH, "//summary[.='All trials, best first']")
    opened.execute_script("arguments[0].focus()", summary)
    ActionChains(opened).send_keys(Keys.ENTER).perform()
    rows = opened.find_elements(By.CSS_SELECTOR, "#history details tbody tr")
    assert len(rows) == 24 and rows[0].is_displayed()
    scores = [float(row.find_elements(By.TAG_NAME, "td")[2].text or "-1") for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_what_the_other_commands_found_is_shown(opened):
    answer = opened.find_element(By.ID, "answer").text
    assert "Soft vote: macro F1 0.700 (95 % CI 0.600 to 0.800)" in answer
    assert "+0.010 macro F1 (95 % CI -0.010 to +0.030), not significant" in answer
    assert f"Scored elsewhere: macro F1 0.500 by {HOSTILE[0]} (2026-11-30), of mine.csv: -0.200 against our own 0.700" in answer
    advice = opened.find_element(By.ID, "advice").text
    assert "+0.040 macro F1 expected (95 % CI +0.010 to +0.070)" in advice and "macro F1 above 0.960" in advice
    assert f"{HOSTILE[0]}, small 5 0.200 +0.100" in advice and "100.0% 80 560 0.400 0.200 to 0.500" in advice
    assert "Guessing scores 0.100." in opened.find_element(By.ID, "probes").text
    assert "own.safetensors k-NN 0.200 0.100 to 0.300 2.0 1.0" in opened.find_element(By.ID, "probes").text
    assert "differ by 10.0 percentage points" in opened.find_element(By.ID, "calibration").text
    assert "and 10 more" in opened.find_element(By.ID, "mistakes").get_attribute("textContent")
    assert "shape" in opened.find_element(By.ID, "shift").text
    assert "50.0% 60.0% 61.0% 50.0% to 70.0%" in opened.find_element(By.ID, "shift").text
    assert "Label issues: 1." in opened.find_element(By.ID, "suspects").text
    assert "1 pair is across splits." in opened.find_element(By.CSS_SELECTOR, "#leaks .warning").text
    assert "These runs are split by group." in opened.find_element(By.ID, "leaks").text
    assert ": 1. Side by side: leaks/pairs.png" in opened.find_element(By.ID, "leaks").text
    assert "c0ffee" in opened.find_element(By.ID, "settings").text
    assert "NA" in answer

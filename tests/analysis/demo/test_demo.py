"""What the demo answers, whom it hears, and what no request can do to it."""

import csv
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from typer.testing import CliRunner

from analysis.demo import __main__ as command
from analysis.demo.card import card_of
from analysis.demo.model import PIXELS, Model, read_scores
from analysis.demo.server import Limits, make_app
from analysis.demo.with_torch import WithTorch
from analysis.evaluation.answering import open_ensemble
from analysis.evaluation.worth import read_worth
from analysis.members.trials import load_runs
from analysis.pages.access import HERE, Names, is_loopback, names_at
from analysis.predict.__main__ import app as predict_app
from tests.analysis.ensembles import mean_of, write
from tests.analysis.predict.test_predict import png_header
from tests.browser import browser, chromium, errors, open_chromium, prefer, press, resize, screenshot  # noqa: F401  two are fixtures
from tests.conftest import ROOT
from tests.faults.commands import wait_for
from tests.messages import missing
from trainables.data.targets import Number, Scheme, Tags
from trainables.record import MODEL, trial_folder, write_json

ADDRESS = f"http://{HERE}:8000"
CPU = torch.device("cpu")
TOKEN = "a-token-of-ours"
SPOILED = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def folder(faces, tmp_path_factory) -> Path:
    """An ensemble of four trials that differ in task, view and channels, which is averaged over two transforms."""
    run = shutil.copytree(faces.folder, tmp_path_factory.mktemp("demo") / "runs" / "faces")
    ensemble = write(run, replace(mean_of(load_runs([run]).trials), looks=("plain", "flip")))
    answer = {"score": 0.5, "interval": [0.4, 0.6], "gain": 0.1, "gain_interval": [0, 0.2], "distinguishable": False}
    holdout = {"photos": 12, "people": 3}
    scores = {
        "metric": "f1_macro",
        "answer": "soft",
        "answers": {"soft": answer},
        "members": [],
        "holdout": holdout,
        "versions": {"ray": "2"},
    }
    write_json(ensemble / "scores.json", scores)
    return ensemble


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return Model(WithTorch(open_ensemble(folder), CPU))


@pytest.fixture(scope="module")
def make_client(folder, model):
    """A client of a server with other limits, names or a token."""

    def make(names: Names | None = None, token: str = "", **limits: float) -> TestClient:
        app = make_app(model, card_of(model), names or Names(), token, Limits(**limits))
        return TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)

    return make


@pytest.fixture(scope="module")
def client(make_client) -> TestClient:
    return make_client()


@pytest.fixture(scope="module")
def images(people) -> list[Path]:
    return sorted((people / "train" / "images").rglob("*.*g"))[:5]


def form(*files: tuple[str, bytes] | Path) -> list:
    named = [(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
    return [("images", file) for file in named]


def png(size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, "navy").save(buffer, "PNG")
    return buffer.getvalue()


# Answers


def test_it_answers_as_analysis_predict_does(client, folder, images, tmp_path):
    for number, file in enumerate(images):
        shutil.copy(file, tmp_path / f"{number}{file.suffix}")
    words = ["--ensemble", str(folder), "--photos", str(tmp_path), "--out", str(tmp_path / "answers.csv"), "--device", "cpu"]
    assert CliRunner().invoke(predict_app, words).exit_code == 0
    table = pd.read_csv(tmp_path / "answers.csv")
    expected = table[[name for name in table.columns if name.startswith("P(")]].to_numpy()
    answer = client.post("/predict", files=form(*images))
    assert answer.status_code == 200, answer.text
    found = answer.json()["images"]
    np.testing.assert_allclose([one["scores"] for one in found], expected, atol=1e-5)
    card = client.get("/model").json()
    assert [f"P({name})" for name in card["classes"]] == [name for name in table.columns if name.startswith("P(")]
    for place, target in enumerate(card["targets"]):
        name = target["name"]
        assert [one["targets"][place]["value"] for one in found] == table[name].tolist()
        np.testing.assert_allclose([one["targets"][place]["probability"] for one in found], table[f"{name} probability"], atol=1e-5)
        assert all(list(one["targets"][place]["probabilities"]) == target["values"] for one in found)
    alone = [client.post("/predict", files=form(file)).json()["images"][0]["scores"] for file in images[:2]]
    np.testing.assert_allclose(alone, expected[:2], atol=1e-5)


def test_what_the_models_saw_comes_along_as_pixels_where_it_is_asked_for(client, model, images):
    (one,) = client.post("/predict?pictures=true", files=form(images[0])).json()["images"]
    assert [seen["view"] for seen in one["saw"]] == [str(view) for view in model.views] and len(one["saw"]) == 3
    assert all(seen["picture"].startswith("data:image/png;base64,") for seen in one["saw"])
    with Image.open(images[0]) as image:
        assert (one["width"], one["height"]) == image.size
    left, top, right, bottom = next(seen["crop"] for seen in one["saw"] if "center" in seen["view"])
    assert 0 < left < right < one["width"] and 0 < top < bottom < one["height"]
    (other,) = client.post("/predict", files=form(images[0])).json()["images"]
    assert not any(seen["picture"] for seen in other["saw"]) and other["scores"] == one["scores"]


def test_heat_maps_come_along_where_they_are_asked_for_one_for_each_target_and_change_no_answer(client, images):
    # Two files of one name are two images.
    files = form(images[0], (images[0].name, images[1].read_bytes()))
    plain, explained = client.post("/predict", files=files).json(), client.post("/predict?heatmaps=true", files=files).json()
    for before, after in zip(plain["images"], explained["images"], strict=True):
        assert before["heat_maps"] == [] and after["scores"] == before["scores"] and after["no_heat_maps"] == ""
        assert [(one["target"], one["value"]) for one in after["heat_maps"]] == [(one["target"], one["value"]) for one in after["targets"]]
    first, second = (one["heat_maps"][0]["picture"] for one in explained["images"])
    assert first != second and first.startswith("data:image/jpeg;base64,")
    assert client.post("/predict", files=files).json()["images"] == plain["images"]


def test_tags_and_numbers_are_answered_in_their_own_form():
    (tags,) = read_scores(Scheme((Tags("scene", ("sea; shore", "sky", "sun")),)), np.array([0.9, 0.2, 0.5]))
    assert (
        tags.value == ["sea; shore", "sun"]
        and tags.probability is None
        and tags.probabilities == {"sea; shore": 0.9, "sky": 0.2, "sun": 0.5}
    )
    (number,) = read_scores(Scheme((Number("age"),)), np.array([31.5]))
    assert number.value == 31.5 and number.probabilities is None


def test_the_card_says_what_answers_and_what_it_is_worth(client, folder, model):
    card = client.get("/model").json()
    assert card["name"] == "faces" and card["models"] == 4 and card["transforms"] == ["plain", "flip"]
    assert card["score"] | {"score": 0.5, "interval": [0.4, 0.6], "images": 12, "metric": "f1_macro"} == card["score"]
    assert "torch" in card["versions"] and card["made_with"] == {"ray": "2"}
    bare = shutil.copytree(folder, folder.parent / "bare")
    (bare / "scores.json").write_text("{}")
    assert read_worth(bare, model.scheme).score is None


def test_every_address_is_described_on_a_page_that_needs_no_network(client):
    schema = client.get("/openapi.json").json()
    assert {*schema["paths"]} == {"/predict", "/model", "/health"}
    for path in ("/", "/docs"):
        page = client.get(path)
        text = page.text.replace("http://127.0.0.1", "")
        assert page.status_code == 200 and "http://" not in text and "https://" not in text and "src=" not in text.replace("src=x", "")
        assert page.headers["X-Frame-Options"] == "DENY" and page.headers["Cache-Control"] == "no-store"
    assert not missing(client.get("/docs").text, "/predict", "429", "interval")


# Limits


@pytest.mark.parametrize(
    "name, content, status",
    [
        ("bomb.png", png_header(40_000, 40_000), 413),
        ("large.png", png_header(PIXELS // 1000 + 1, 1000), 413),
        ("lying.png", png_header(60, 60), 422),
        ("cut.png", png()[:60], 422),
        ("text.jpg", b"not an image", 415),
        ("empty.jpg", b"", 415),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words_and_does_not_keep_the_others_from_their_answers(client, name, content, status):
    alone = client.post("/predict", files=form((name, content)))
    assert alone.status_code == status and not missing(alone.json()["detail"], name)
    both = client.post("/predict", files=form((name, content), ("good.png", png())))
    assert both.status_code == 200
    bad, good = both.json()["images"]
    assert bad["problem"] and bad["status"] == status and not bad["scores"] and good["status"] == 200 and good["scores"]


def test_what_is_too_much_is_refused(make_client):
    client = make_client(bytes=2_000, request=6_000, files=3)
    noise = os.urandom(3_000)
    assert client.post("/predict", files=form(*[("a.png", png())] * 3)).status_code == 200
    assert client.post("/predict", files=form(*[("a.png", png())] * 4)).status_code == 413
    answer = client.post("/predict", files=form(("a.png", png()), ("noise.png", noise)))
    assert answer.status_code == 413 and not missing(answer.json()["detail"], "noise.png", "2,000")
    assert client.post("/predict", files=form(*[("a", noise)] * 3)).status_code == 413
    parts = (b"x" * 1_000 for _ in range(10))  # of no declared length
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=parts, headers=kind).status_code == 413
    assert client.post("/predict", files=form(("a.png", png()))).status_code == 200


def test_what_is_no_form_of_files_is_refused(client):
    assert client.post("/predict", content=png(), headers={"Content-Type": "image/png"}).status_code == 415
    assert client.post("/predict", files={"note": (None, "no file")}).status_code == 422
    damaged = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=b"--y\r\n", headers=damaged).status_code in (400, 422)
    assert client.post("/predict", content=b"", headers={"Content-Type": "multipart/form-data"}).status_code == 400


def test_requests_beyond_the_queue_are_told_to_come_again_and_health_answers_meanwhile(make_client, model, monkeypatch):
    begun, go_on = Event(), Event()
    predict = model.predict

    def slow(*asked):
        begun.set()
        assert go_on.wait(20)
        return predict(*asked)

    monkeypatch.setattr(model, "predict", slow)
    with make_client(queue=2) as client, ThreadPoolExecutor(2) as pool:
        held = [pool.submit(client.post, "/predict", files=form(("a.png", png()))) for _ in range(2)]
        assert begun.wait(20)
        wait_for(lambda: client.get("/health").json()["waiting"] == 2, 20)
        refused = client.post("/predict", files=form(("a.png", png())))
        go_on.set()
        assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
        assert [one.result().status_code for one in held] == [200, 200]
        assert client.get("/health").json() == {"status": "ok", "waiting": 0}


# Who is heard


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "elsewhere.example"},
        {"Host": f"{HERE}.elsewhere.example"},
        {"Host": "192.168.0.7:8000"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": f"http://{HERE}:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_pages_of_the_same_browser_are_refused(client, headers):
    assert client.get("/model", headers=headers).status_code == 403
    answer = client.post("/predict", files=form(("a.png", png())), headers=headers)
    assert answer.status_code == 403 and "scores" not in answer.text
    if "Host" in headers:
        assert client.get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{"Origin": ADDRESS}, {"Host": "localhost:9", "Origin": "http://localhost:9"}, {"Host": "[::1]:8000"}])
def test_its_own_page_is_heard_through_a_tunnel_too(client, headers):
    assert client.get("/model", headers=headers).status_code == 200


def test_with_a_token_nothing_is_told_without_it_but_the_page_opens(make_client):
    client = make_client(names_at("0.0.0.0"), TOKEN)
    elsewhere = {"Host": "192.168.0.7:8000"}
    for wrong in ({}, {"Authorization": "Bearer a-token-of-other"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer tök"}):
        given = {name: value.encode() for name, value in (elsewhere | wrong).items()}
        assert client.get("/model", headers=given).status_code == 401
        assert client.post("/predict", files=form(("a.png", png())), headers=given).status_code == 401
    assert all("faces" not in client.get(path, headers=elsewhere).text for path in ("/", "/docs", "/health", "/openapi.json"))
    assert client.get("/model", headers=elsewhere | {"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/model", headers={"Host": "elsewhere.example", "Authorization": f"Bearer {TOKEN}"}).status_code == 403


@pytest.mark.parametrize(
    "host, alone", [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.0.0.2", True), ("0.0.0.0", False), ("::", False)]
)
def test_only_this_machine_reaches_a_loopback_address(host, alone):
    assert is_loopback(host) == alone


# The command


def refused(*words: object) -> str:
    result = CliRunner().invoke(command.app, list(map(str, words)))
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr


def test_a_port_in_use_is_refused_with_the_next_one_that_is_free(folder):
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        text = refused("--ensemble", folder, "--port", port)
    assert not missing(text, f"--port {port}", "--port") and int(text.split("--port ")[-1].split()[0]) > port


def test_an_ensemble_without_its_weights_of_a_newer_format_or_with_code_of_others_is_refused_by_name(folder, tmp_path, monkeypatch):
    copied = shutil.copytree(folder.parents[1], tmp_path / "runs") / "faces"
    ensemble = copied / "ensemble"
    content = json.loads((ensemble / "ensemble.json").read_text())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # nothing is trusted
    (ensemble / "extensions").mkdir()
    (ensemble / "extensions" / "theirs.py").write_text("raise SystemExit")
    digest = hashlib.sha256(b"raise SystemExit").hexdigest()
    write_json(ensemble / "ensemble.json", content | {"extensions": {"theirs.py": digest}})
    assert not missing(refused("--ensemble", ensemble, "--port", 0), "theirs.py", "--trust-code")
    write_json(ensemble / "ensemble.json", content | {"format": 99})
    assert not missing(refused("--ensemble", ensemble, "--port", 0), "ensemble.json", "99")
    write_json(ensemble / "ensemble.json", content)
    (trial_folder(copied, 1) / MODEL).unlink()
    assert not missing(refused("--ensemble", ensemble, "--port", 0), f"trials/1/{MODEL}", "analysis.ensemble --run")


def test_all_mistakes_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PACKAGES", {"no-such-package": "no_such_package"})
    text = refused("--ensemble", tmp_path, "--host", "0.0.0.0", "--port", 0)
    assert not missing(text, tmp_path, "--host 0.0.0.0", "--token", "pip install no-such-package", "--extra demo")
    assert not missing(refused("--ensemble", tmp_path, "--host", "192.0.2.1", "--token", "short"), "--host 192.0.2.1", "--token")


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[tuple[dict, subprocess.Popen]]:
    """The command in a process of its own: its document and the process."""
    words = [sys.executable, "-m", "analysis.demo", "--ensemble", folder, "--port", "0", "--device", "cpu", "--json", *more]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield json.loads(process.stdout.readline()), process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def started(folder):
    with serving(folder) as found:
        yield found


def test_ctrl_c_ends_it_cleanly(started):
    document, process = started
    with urllib.request.urlopen(document["address"] + "health", timeout=10) as answer:
        assert json.load(answer)["status"] == "ok"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "Traceback" not in process.stderr.read()


@pytest.mark.nightly
def test_a_hundred_requests_at_once_are_answered_or_told_to_come_again_and_the_server_lives(started, images):
    document, process = started
    boundary, content = "x", images[0].read_bytes()
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
    contents = [content, png_header(40_000, 40_000), png_header(60, 60), b"text"]

    def ask(number: int) -> int:
        body = head.encode() + contents[number % 4] + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(document["address"] + "predict", body, kind), timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    with ThreadPoolExecutor(100) as pool:
        codes = Counter(pool.map(ask, range(100)))
    assert {*codes} <= {200, 413, 415, 422, 429} and codes[429], codes
    assert sum(codes.values()) == 100
    assert [ask(number) for number in range(4)] == [200, 413, 422, 415] and process.poll() is None


# The page


def by(page: webdriver.Chrome, name: str):
    return page.find_element(By.ID, name)


def cards(page: webdriver.Chrome) -> list[str]:
    return [card.text for card in page.find_elements(By.CSS_SELECTOR, "#history > li")]


@pytest.mark.nightly
def test_images_are_chosen_predicted_kept_and_saved_as_csv(started, browser, images, tmp_path):  # noqa: F811
    browser.get(started[0]["page"])
    wait_for(lambda: "95 % CI" in by(browser, "worth").text, 20)
    odd = tmp_path / SPOILED
    odd.write_bytes(png())
    text = tmp_path / "=text.jpg"
    text.write_text("not an image")
    by(browser, "file").send_keys("\n".join(map(str, [images[0], odd, text])))
    wait_for(lambda: len(cards(browser)) == 3, 30)
    wait_for(lambda: "cannot be used" in by(browser, "said").text, 10)
    last, middle, first = cards(browser)
    assert not missing(first, images[0].name, "mask", "age", "%") and SPOILED in middle and "not an image" in last
    assert len(browser.find_elements(By.CSS_SELECTOR, "#history canvas")) == 2
    rows = list(csv.DictReader(browser.execute_script("return table()").splitlines()))
    assert [row["image"] for row in rows] == [images[0].name, SPOILED, "'=text.jpg"]
    assert (
        float(rows[0]["mask probability"]) > 0
        and rows[2]["problem"]
        and sum(float(rows[0][name]) for name in rows[0] if name[:2] == "P(") == pytest.approx(1)
    )
    press(browser, "s")
    assert "predictions.csv" in by(browser, "said").text
    for colours in ("light", "dark"):
        for width in (390, 1280):
            prefer(browser, colours)
            resize(browser, width, 900)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            screenshot(browser, tmp_path / f"page-{colours}-{width}.png")
    shown = [one for one in errors(browser) if "415" not in one]
    assert not shown


@pytest.mark.nightly
@pytest.mark.parametrize(
    "event, holder", [("drop", "DragEvent('drop', {dataTransfer"), ("paste", "ClipboardEvent('paste', {clipboardData")]
)
def test_images_are_dropped_and_pasted(started, browser, event, holder):  # noqa: F811
    browser.get(started[0]["page"])
    wait_for(lambda: "95 % CI" in by(browser, "worth").text, 20)
    script = f"""
        const done = arguments[0], canvas = document.createElement("canvas");
        canvas.toBlob(blob => {{
          const held = new DataTransfer();
          for (const name of ["a.png", "b.png"]) held.items.add(new File([blob], name, {{ type: "image/png" }}));
          document.body.dispatchEvent(new {holder}: held, bubbles: true, cancelable: true}}));
          done();
        }});
    """
    browser.execute_async_script(script)
    wait_for(lambda: len(cards(browser)) == 2, 20)
    assert "b.png" in cards(browser)[0] and "a.png" in cards(browser)[1] and not errors(browser)


@pytest.mark.nightly
def test_a_page_opened_with_its_token_keeps_it_to_itself(folder, browser):  # noqa: F811
    with serving(folder, "--token", TOKEN) as (document, _):
        browser.get(document["address"])
        wait_for(lambda: by(browser, "knock").is_displayed(), 20)
        browser.get(document["page"])
        wait_for(lambda: "95 % CI" in by(browser, "worth").text, 20)
        assert TOKEN not in browser.current_url and not by(browser, "knock").is_displayed()


@pytest.mark.nightly
def test_a_webcam_is_predicted_live_by_one_click_and_without_one_that_is_said(started, browser, tmp_path):  # noqa: F811
    with open_chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as page:
        page.get(started[0]["page"])
        by(page, "camera").click()
        wait_for(lambda: "a second" in by(page, "speed").text, 30)
        assert not missing(by(page, "live-targets").text, "mask", "%")
        press(page, "k")
        wait_for(lambda: len(cards(page)) == 1, 10)
        assert "webcam 1" in cards(page)[0]
        resize(page, 390, 900)
        screenshot(page, tmp_path / "webcam.png")
        press(page, "w")
        assert not by(page, "live").is_displayed() and not errors(page)
    browser.get(started[0]["page"])
    press(browser, "w")
    wait_for(lambda: by(browser, "said").get_attribute("class") == "wrong", 10)
    assert "camera" in by(browser, "said").text


@pytest.mark.nightly
def test_a_face_view_says_whether_a_face_was_detected(make_run, tmp_path):
    made = make_run(tmp_path, "crops", [{"task": "joint", "view": {"size": 32, "crop": "face"}}])
    model = Model(WithTorch(open_ensemble(write(made.folder, mean_of(load_runs([made.folder]).trials))), CPU))
    (one,) = model.predict([("plain.png", png())])
    assert one.saw[0].needs_face and one.saw[0].face is None

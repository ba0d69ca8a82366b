"""The page of a run: who may see it and ask, what it shows, and what a click does; in Chromium."""

import json
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from socket import socket
from subprocess import DEVNULL, Popen

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from selenium.webdriver.common.by import By

from search_spaces.read import read_space
from tests.browser import browser, chromium, errors, prefer, resize, screenshot  # noqa: F401  two of them are fixtures
from tests.conftest import TINY_SPACE
from tests.faults.commands import wait_for
from tests.messages import missing
from trainables.config import TrialConfig
from trainables.metrics import DEFAULT, METRICS
from trainables.record import (
    SPACE,
    Result,
    RunCard,
    RunError,
    read_records,
    start_record,
    trial_folder,
    write_reports,
    write_result,
    write_run,
)
from tuner.live import Moment, Pulse, Running
from tuner.lock import hold
from tuner.requests import pending
from tuner.searchers.journal import JOURNAL, Journal
from tuner.searchers.random import random_draws
from tuner.watch.machine import Machine
from tuner.watch.server import HERE, Server, serving

EPOCHS = 4
SPOILED = "<img src=x onerror=alert(1)>"
SCORES = {0: [0.2, 0.3, 0.35, 0.4], 1: [0.3, 0.5], 2: [0.1, 0.15], 3: [0.4]}
STATES = {0: "finished", 1: "interrupted", 2: "stopped", 3: "interrupted"}


@pytest.fixture
def run(tmp_path) -> Path:
    """Four trials as their processes have written them so far; trials 1 and 3 may run."""
    folder = tmp_path / "faces"
    target = ("mask", ("worn", SPOILED), ())
    write_run(folder, RunCard("faces", "tiny", "photos", (30, 60), 0, "abcd", (target,), EPOCHS, 6, "python -m tuner.run"))
    (folder / SPACE).write_text(TINY_SPACE)
    space = read_space(folder / SPACE)
    for number, values in enumerate(random_draws(space, {"epochs": EPOCHS, "seed": 0}, seed=0, count=len(SCORES))):
        place, scores = trial_folder(folder, number), SCORES[number]
        start_record(place, TrialConfig.from_values(values))
        best = scores.index(max(scores)) + 1
        write_reports(place, [report(epoch, score, best) for epoch, score in enumerate(scores, start=1)])
        write_result(place, Result(STATES[number], f"because of {SPOILED}", best, "split", "CPU", "code"))
    return folder


def report(epoch: int, score: float, best: int) -> dict:
    return {"epoch": epoch, "score": score, "best_epoch": min(best, epoch), "seconds": 2.0, "last": epoch == EPOCHS}


@pytest.fixture
def searched(run):
    """The run while it is searched."""
    with hold(run):
        Pulse(run).show(lambda: Moment((Running(1, 2, "node-7, process 12", 0.0), Running(3, 1, "", 0.0)), seconds_left=99.0))
        yield run


@pytest.fixture
def server(run):
    with serving(run) as server:
        yield server


def asked(server: Server, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer; a body is POSTed."""
    content = None if body is None else json.dumps(body).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{HERE}:{server.server_port}{path}", content, kind | headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# Who is heard


def test_it_is_served_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/state", "/wrong/", "/wrong/state", "//state"])
def test_without_the_token_nothing_is_told_or_done(searched, server, path):
    for body in (None, {}):
        status, text = asked(server, path, body)
        assert status == 403 and "faces" not in text and server.token not in text
    assert asked(server, path.replace("state", "stop"), {})[0] == 403 and not pending(searched)[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": f"http://{HERE}:1"},
        {"Host": "elsewhere.example"},
        {"Host": f"{HERE}.elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
    ],
)
def test_another_page_in_the_same_browser_is_refused_though_it_knows_the_token(searched, server, headers):
    assert asked(server, f"/{server.token}/stop", {}, **headers)[0] == 403 and not pending(searched)[0]
    if "Content-Type" not in headers:
        assert asked(server, f"/{server.token}/state", **headers)[0] == 403


def test_no_other_origin_may_read_an_answer_and_no_page_may_frame_it(server):
    with urllib.request.urlopen(server.address) as answer:
        headers, page = answer.headers, answer.read().decode()
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert headers["X-Frame-Options"] == "DENY" and headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert "connect-src 'self'" in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_a_request_that_makes_no_sense_is_refused_in_words(searched, server):
    for path, body, part in [
        ("stop", {"trial": "1"}, "trial"),
        ("stop", {"trial": 0}, "running are 1, 3"),
        ("spare", {}, "trial"),
        ("enqueue", {}, "values"),
        ("enqueue", {"values": {"optimizer/lr": "7", "loss/name": "hinge"}}, "hinge"),
        ("enqueue", [1], "object"),
    ]:
        status, text = asked(server, f"/{server.token}/{path}", body)
        assert status == 400 and not missing(json.loads(text)["mistake"], part)
    assert asked(server, f"/{server.token}/remove", {})[0] == asked(server, f"/{server.token}/../faces")[0] == 404
    assert not pending(searched)[0]


def test_a_port_that_is_taken_is_refused(run, server):
    with pytest.raises(RunError, match=str(server.server_port)), serving(run, server.server_port):
        pass


# What it shows and does


def test_the_state_is_that_of_the_records_and_of_this_moment(searched, server):
    state = json.loads(asked(server, f"/{server.token}/state")[1])
    assert [trial["state"] for trial in state["trials"]] == ["finished", "running", "stopped", "running"]
    assert [[score for _, score in trial["curve"]] for trial in state["trials"]] == list(SCORES.values())
    assert state["best"] == {"trial": 1, "score": 0.5} and state["baseline"] == 0 and state["seconds_left"] == 99.0
    assert state["trials"][1]["place"] == "node-7, process 12" and state["planned"] == 6 and state["machine"]["cores"] >= 1


def test_a_run_that_nobody_searches_is_shown_and_only_takes_configurations(run, server):
    state = json.loads(asked(server, f"/{server.token}/state")[1])
    assert state["searched_by"] is None and [trial["state"] for trial in state["trials"]] == list(STATES.values())
    assert asked(server, f"/{server.token}/stop", {})[0] == 400
    status, said = asked(server, f"/{server.token}/enqueue", {"values": {"optimizer/lr": "0.004"}})
    assert status == 200 and "resume" in said and len(pending(run)[0]) == 1


def test_a_run_whose_images_are_still_read_is_shown_as_such(tmp_path):
    with serving(tmp_path) as server:
        assert json.loads(asked(server, f"/{server.token}/state")[1])["preparing"] is True


def test_an_address_without_its_last_slash_leads_to_the_page(server):
    with urllib.request.urlopen(server.address.rstrip("/")) as answer:
        assert answer.url == server.address


def test_the_use_of_gpus_is_what_their_driver_says(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H200, 37, 2048, 143771'\necho 'NVIDIA H200, [N/A], 0, 143771'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    first, second = Machine().use().gpus
    assert (first.name, first.busy, first.used, second.busy) == ("NVIDIA H200", 0.37, 2.0, None)
    driver.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert Machine().use().gpus == ()


def test_a_click_stops_spares_and_adds_and_names_are_text(searched, server, browser, tmp_path):  # noqa: F811
    browser.get(server.address)
    shown = lambda: browser.find_element(By.TAG_NAME, "body").text  # noqa: E731
    wait_for(lambda: "node-7, process 12" in shown())
    assert SPOILED in shown() and not missing(shown(), "0.500", "2 running", "1:39", "trial 1, on validation")
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Stop trial 3']").click()
    browser.switch_to.alert.accept()
    wait_for(lambda: "Trial 3 stops" in shown())
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Spare trial 1']").click()
    wait_for(lambda: "Trial 1 is not pruned" in shown())
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Copy trial 0']").click()
    rate = browser.find_element(By.NAME, "optimizer/lr")
    rate.clear()
    rate.send_keys("7")
    rate.submit()
    wait_for(lambda: "from 1.0e-6 to 0.01" in browser.find_element(By.ID, "said").text)
    rate.clear()
    rate.send_keys("0.004")
    rate.submit()
    wait_for(lambda: "Enqueued" in shown())
    found = sorted((request.kind, request.trial) for request in pending(searched)[0].values() if request.kind != "enqueue")
    assert found == [("spare", 1), ("stop", 3)]
    (enqueued,) = [request for request in pending(searched)[0].values() if request.kind == "enqueue"]
    assert enqueued.values["optimizer/lr"] == 0.004 and "loss/name" in enqueued.values
    for width in (1280, 390):
        for colours in ("light", "dark"):
            resize(browser, width, 900)
            prefer(browser, colours)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            screenshot(browser, tmp_path / f"{width}-{colours}.png")
    refused = [line for line in errors(browser) if "400" not in line]
    assert refused == []


# In Optuna's dashboard


@pytest.fixture
def dashboard(run):
    """Optuna's own dashboard over the journal of the run, and the journal; three trials are there, and trial 1 runs."""
    records = read_records(run)
    journal = Journal(run, read_space(run / SPACE), METRICS[DEFAULT], [record for record in records if record.number != 1])
    journal.started(1, records[1].config.values(), {1: 0.3})
    with socket() as free:
        free.bind((HERE, 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).parent / "optuna-dashboard"), str(run / JOURNAL), "--host", HERE, "--port", port]
    process = Popen(command, stdout=DEVNULL, stderr=DEVNULL)
    address = f"http://{HERE}:{port}"

    def answers() -> bool:
        with suppress(OSError):
            return urllib.request.urlopen(f"{address}/dashboard/", timeout=5).status == 200
        return False

    try:
        wait_for(answers)
        yield address, journal
    finally:
        process.kill()
        process.wait()


def test_the_journal_tells_optuna_what_the_records_hold(run):
    records = read_records(run)
    journal = Journal(run, read_space(run / SPACE), METRICS[DEFAULT], records)
    journal.started(4, records[0].config.values(), {})
    for epoch, score in enumerate([0.2, 0.6], start=1):
        journal.reported(4, epoch, score)
    journal.ended(4, "finished", 0.6)
    (study,) = optuna.study.get_all_study_summaries(storage := JournalStorage(JournalFileBackend(str(run / JOURNAL))))
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert [trial.user_attrs["number"] for trial in trials] == [0, 1, 2, 3, 4]
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "COMPLETE"]
    assert trials[4].intermediate_values == {1: 0.2, 2: 0.6} and trials[4].value == 0.6 and trials[4].params == trials[0].params


@pytest.mark.nightly
def test_optunas_dashboard_shows_the_run_while_it_is_searched(dashboard, browser):  # noqa: F811
    address, journal = dashboard
    browser.get(f"{address}/dashboard/studies/0/trials")
    shown = lambda: browser.find_element(By.TAG_NAME, "body").text  # noqa: E731
    wait_for(lambda: "Trial 3" in shown() and "Running" in shown(), limit=60)
    assert "Trial 4" not in shown()
    journal.reported(1, 2, 0.5)
    journal.ended(1, "finished", 0.5)
    browser.refresh()
    wait_for(lambda: "Trial 3" in shown() and "Running" not in shown(), limit=60)

"""What people ask of a run that is searched: what is refused at the door, what a search makes of it, and that a crash loses nothing."""

import json
from threading import Thread

import pytest
import typer
from typer.testing import CliRunner

import sweepvote as sv
from search_spaces.read import read_space
from tests.conftest import TINY_SPACE
from tests.faults.commands import searched, wait_for
from tests.messages import missing
from tests.s3 import BUCKET, s3_server
from tests.tuner.searchers.lives import config_with
from tests.tuner.stoppers.reports import pruner_of, reported
from trainables.config import TrialConfig
from trainables.record import SPACE, RunCard, RunError, read_records, start_record, trial_folder, write_run
from trainables.storage import open_folder
from tuner import live, requests
from tuner.enqueue import main as enqueue_command
from tuner.live import Moment, Pulse, Running, running
from tuner.lock import hold
from tuner.requests import FOLDER, OF_A_TRIAL, Inbox, Request, ask, enqueue, forget_stops, pending, spare, stop

FIXED = {"epochs": 4, "metric": "f1_macro"}
FOCAL = {"loss/name": "focal", "loss/gamma": 1.5, "optimizer/lr": 0.001}
CARD = RunCard("first", "tiny", "photos", (30, 60), 0, "abcd", (("mask", ("worn", "absent"), ()),), 4, 4, "python -m tuner.run")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every look counts, and so does every moment."""
    monkeypatch.setattr(requests, "EVERY", 0.0)
    monkeypatch.setattr(live, "EVERY", 0.1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "first"
    write_run(folder, CARD)
    (folder / SPACE).write_text(TINY_SPACE)
    return folder


@pytest.fixture
def space(run):
    return read_space(run / SPACE)


def asked(run) -> list[Request]:
    return list(pending(run)[0].values())


# At the door


@pytest.mark.parametrize(
    "settings, parts",
    [
        (["loss/name=hinge"], ["loss/name", "hinge", "cross_entropy, focal", "space.yaml:7"]),
        (["optimizer/lr=1.0"], ["optimizer/lr", "1.0", "from 1.0e-6 to 0.01, log"]),
        (["optimizer/lr=1e-3"], ["optimizer/lr", "1e-3", "1.0e-3"]),
        (["loss/gama=2"], ["loss/gama", "did you mean loss/gamma"]),
        (["train/batch_size=32"], ["train/batch_size", "32", "it is 16"]),
        (["loss/gamma=2"], ["loss/gamma", "loss/name is focal"]),
        (["loss/gamma={float: [1.0, 2.0]}", "loss/name=focal"], ["loss/gamma", "single values"]),
        (["optimizer/lr"], ["optimizer/lr"]),
        ([], ["--set", "loss/name, loss/gamma, optimizer/lr"]),
    ],
)
def test_what_the_space_cannot_draw_is_refused_with_what_it_can(run, settings, parts):
    words = [word for one in settings for word in ("--set", one)]
    done = in_terminal(enqueue_command, "first", *words)
    assert done.exit_code == 2 and not missing(done.stderr, *parts) and not (run / FOLDER).exists()


def test_all_mistakes_are_told_at_once(run):
    done = in_terminal(enqueue_command, "first", "--set", "loss/name=hinge", "--set", "optimizer/lr=7")
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 2


def in_terminal(command, *words):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def test_what_is_enqueued_says_when_it_is_tried(run):
    _, when = enqueue("first", ["loss/name=focal"])
    assert not missing(when, "no search runs", "--resume first")
    with hold(run):
        _, when = enqueue("first", ["loss/name=focal"])
        assert "process" in when and "next" in when
    for number in range(3):
        start_record(trial_folder(run, number), config())
    _, when = enqueue("first", ["loss/name=focal"])
    assert not missing(when, "all 4 trials", "--resume first --trials +2")


def config():
    return TrialConfig.from_values(config_with())


def test_only_a_search_that_runs_can_be_stopped_and_only_trials_that_run_be_stopped_or_spared(run):
    for request in (stop, spare):
        with pytest.raises(RunError, match="first.*--resume first"):
            request("first", 0)
    with hold(run):
        with pytest.raises(RunError, match="trial 3 does not exist; none runs yet"):
            stop("first", 3)
        Pulse(run).show(lambda: Moment(tuple(Running(number, 1, "here", 0.0) for number in (5, 2))))
        with pytest.raises(RunError, match="running are 2, 5"):
            spare("first", 3)
        stop("first")
        stop("first", 5)
        spare("first", 2)
    assert [(request.kind, request.trial) for request in asked(run)] == [("stop", None), ("stop", 5), ("spare", 2)]
    assert all("@" in request.by and request.at for request in asked(run))


def test_a_search_whose_images_are_still_read_can_be_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "new"
    folder.mkdir(parents=True)
    with hold(folder):
        stop("new")
        with pytest.raises(RunError, match="none runs yet"):
            stop("new", 0)
        with pytest.raises(RunError, match="still reading images"):
            enqueue("new", FOCAL)
    assert [request.kind for request in asked(folder)] == ["stop"]


# In the search


def test_configurations_are_tried_in_the_order_in_which_they_came_and_the_record_keeps_who_asked(run, space):
    enqueue("first", FOCAL, by="ann")
    enqueue("first", ["loss/name=cross_entropy"], by="an agent")
    inbox = Inbox(run)
    assert inbox.propose(4, space, FIXED) == FOCAL
    assert inbox.propose(5, space, FIXED) == {"loss/name": "cross_entropy"}
    assert inbox.propose(6, space, FIXED) is None
    start_record(trial_folder(run, 4), config())
    inbox.look()
    assert json.loads((trial_folder(run, 4) / OF_A_TRIAL).read_text())["by"] == "ann"
    assert [request.by for request in asked(run)] == ["an agent"]


def test_a_configuration_that_was_taken_but_has_no_record_after_a_crash_waits_again(run, space):
    enqueue("first", FOCAL)
    assert Inbox(run).propose(4, space, FIXED) == FOCAL
    again = Inbox(run)
    assert again.propose(5, space, FIXED) is None, "it is another's"
    again.begin()
    assert again.propose(5, space, FIXED) == FOCAL


def test_what_a_changed_space_cannot_draw_is_told_once_and_left(run, space):
    enqueue("first", FOCAL)
    (run / FOLDER / "0.json").write_text("{")
    (run / SPACE).write_text(TINY_SPACE.replace("[1.0e-6, 1.0e-2]", "[1.0e-6, 1.0e-5]").partition("start:")[0])
    said = []
    inbox = Inbox(run, said.append)
    for number in (4, 5):
        assert inbox.propose(number, read_space(run / SPACE), FIXED) is None
    assert len(said) == 2 and not missing("".join(said), "0.json", "optimizer/lr", "0.001")
    assert len(list((run / FOLDER).iterdir())) == 2


def test_a_search_is_asked_to_stop_once_and_not_by_what_was_meant_for_an_earlier_one(run):
    inbox = Inbox(run)
    assert inbox.stopped() is None
    ask(run, Request("stop", by="ann@host"))
    assert "ann@host" in inbox.stopped() and inbox.stopped() is None
    ask(run, Request("stop"))
    ask(run, Request("stop", trial=3))
    forget_stops(run)
    assert Inbox(run).stopped() is None and [request.trial for request in asked(run)] == [3]


def test_a_trial_ends_at_its_next_report_whatever_it_scores_and_one_that_ends_there_anyway_is_finished(run):
    inbox = Inbox(run)
    pruner = pruner_of("none", asked=inbox.why_stopped)
    assert not reported(pruner, 3, 0.9, epoch=1)
    ask(run, Request("stop", trial=3, by="ann"))
    inbox.look()
    assert not reported(pruner, 2, 0.1, epoch=1) and not reported(pruner, 3, 0.9, epoch=9, last=True)
    assert reported(pruner, 3, 0.9, epoch=2) and "ann" in pruner.reasons[3]
    inbox.over = lambda number: number == 3
    inbox.look()
    assert asked(run) == []


def test_a_spared_trial_is_not_pruned_by_a_later_command_either_until_it_has_ended(run):
    ask(run, Request("spare", trial=1))
    for _ in range(2):
        inbox = Inbox(run)
        inbox.begin()
        pruner = pruner_of(spared=inbox.spares)
        assert not reported(pruner, 0, 0.9) and not reported(pruner, 1, 0.1) and reported(pruner, 2, 0.1)
    inbox.over = lambda number: True
    inbox.end()
    assert asked(run) == []


@pytest.mark.nightly
def test_requests_reach_a_search_whose_run_is_in_an_object_store(space, run):
    with s3_server() as server:
        address = server.address_of(f"s3://{BUCKET}/runs/first")
        away = open_folder(address)
        write_run(away, CARD)
        (away / SPACE).write_bytes((run / SPACE).read_bytes())
        enqueue(address, FOCAL, by="ann")
        ask(away, Request("stop", trial=3))
        inbox = Inbox(away)
        assert inbox.propose(4, space, FIXED) == FOCAL and inbox.why_stopped(3)
        start_record(trial_folder(away, 4), config())
        inbox.over = lambda number: number == 3
        inbox.end()
        assert not pending(away)[0] and (trial_folder(away, 4) / OF_A_TRIAL).is_file()


def test_a_search_tries_what_is_enqueued_stops_a_trial_and_then_itself(run, tiny_space, demo, ray_cluster, tmp_path, monkeypatch):
    """One real search from another thread; the configuration comes from the command line, all else from Python."""
    file = tmp_path / "long.yaml"
    file.write_text(TINY_SPACE.partition("start:")[0])
    said = []
    options = {"space": str(file), "data": demo, "name": "long", "changes": ("run/epochs=300", "run/grace=300", "run/probe=false")}
    thread = Thread(target=lambda: said.append(searched(ray_cluster, **options)))
    thread.start()
    folder = tmp_path / "runs" / "long"
    runs = lambda number: wait_for(lambda: number in running(folder))  # noqa: E731
    runs(0)
    long = sv.load("long")
    done = in_terminal(enqueue_command, "long", "--set", "optimizer/lr=0.0042", "--set", "loss/name=cross_entropy", "--by", "ann")
    assert done.exit_code == 0, done.stderr
    long.stop(trial=0)
    runs(1)
    long.spare(1)
    wait_for(lambda: (trial_folder(folder, 1) / "reports.jsonl").is_file())
    long.stop()
    thread.join()
    ((code, words),) = said
    assert code == 143 and "Stopped early by a request" in words
    first, second = read_records(folder)
    assert first.result.state == "stopped" and "a request of" in first.result.reason
    assert second.result.state == "interrupted" and second.config.optimizer.lr == 0.0042
    assert json.loads((second.folder / OF_A_TRIAL).read_text())["by"] == "ann"
    assert [request.kind for request in asked(folder)] == ["spare"], "the trial may be resumed"
    assert not (folder / "live.json").exists()

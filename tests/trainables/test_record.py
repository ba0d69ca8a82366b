import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainables.migrations import FORMAT
from trainables.record import (
    DAMAGE,
    LAST,
    MODEL,
    Decision,
    Origin,
    Predictions,
    Record,
    Result,
    RunCard,
    RunError,
    end_record,
    find_run,
    list_trials,
    ranked,
    read_decisions,
    read_last,
    read_predictions,
    read_record,
    read_records,
    read_result,
    read_run,
    searched_run,
    start_record,
    trial_folder,
    write_decisions,
    write_json,
    write_last,
    write_predictions,
    write_reports,
    write_result,
    write_run,
)
from trainables.storage import write_atomically

ATTRIBUTES = (("mask", ("worn", "incorrect", "absent"), ()), ("age", ("<30", ">=30"), (30,)))
CARD = RunCard("faces", "effnet.yaml", "data", (30,), 0, "abcd", ATTRIBUTES, 3, 4, "python -m tuner.run")
RESULT = Result("interrupted", "still running", 2, "abcd", "CPU", "0.1", {"torch": "2"}, "", 3, 2, 8, ("out of memory once",))
DECISIONS = (Decision(1, 0.1, 0, None, True), Decision(3, 0.25, 4, 0.3, False))


@pytest.fixture
def folder(tmp_path, make_config):
    """The record of a trial that is at work in its third epoch."""
    folder = trial_folder(tmp_path, 7)
    start_record(folder, make_config())
    write_reports(folder, [{"epoch": 1, "score": 0.1}, {"epoch": 2, "score": 0.3}])
    write_result(folder, RESULT)
    write_last(folder, b"tensors")
    return folder


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond a thousand bytes; not even the one that pytest's own words may be going to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def names(folder) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(OSError), small_disk():
        write_atomically(tmp_path / "file", bytes(10_000))
    assert (tmp_path / "file").read_bytes() == b"old" and names(tmp_path) == {"file"}


def test_a_first_write_that_fails_midway_leaves_nothing(tmp_path):
    with pytest.raises(OSError), small_disk():
        write_atomically(tmp_path / "file", bytes(10_000))
    assert names(tmp_path) == set()


def test_a_finished_write_takes_the_old_files_place(tmp_path):
    for content in (b"old", b"new and longer"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content and names(tmp_path) == {"file"}


def test_what_json_cannot_express_is_not_written(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"a": {1}})
    assert names(tmp_path) == set()


def test_a_record_is_read_as_it_was_written(folder, make_config):
    record = read_record(folder)
    assert (record.number, record.folder, record.config, record.result) == (7, folder, make_config(), RESULT)
    assert record.reports == ({"epoch": 1, "score": 0.1, "shown": []}, {"epoch": 2, "score": 0.3, "shown": []})
    assert record.best == record.reports[1]
    assert not record.has_model and record.decisions == ()


def test_what_asha_found_is_read_as_it_was_written_and_is_part_of_the_record(folder):
    assert read_decisions(folder) == ()
    write_decisions(folder, DECISIONS)
    assert read_decisions(folder) == read_record(folder).decisions == DECISIONS


def test_a_result_holds_the_failure_and_what_happened_on_the_way(folder):
    told = json.loads((folder / "result.json").read_text())
    assert {name: told[name] for name in ("cause", "attempt", "threads", "micro_batch", "notes")} == {
        "cause": "",
        "attempt": 3,
        "threads": 2,
        "micro_batch": 8,
        "notes": ["out of memory once"],
    }
    assert read_result(folder) == RESULT


def test_a_trial_that_never_began_has_no_result(tmp_path):
    assert read_result(tmp_path) is None


def test_config_json_holds_every_effective_value(folder, make_config):
    assert json.loads((folder / "config.json").read_text()) == {"format": FORMAT, **make_config().values()}


def test_a_trial_that_died_before_its_result_reads_as_interrupted(tmp_path, make_config):
    start_record(trial_folder(tmp_path, 0), make_config())
    record = read_record(trial_folder(tmp_path, 0))
    assert record.result.state == "interrupted" and record.reports == () and not record.best
    assert record.result.attempt == 0, "no process has worked on it"


@pytest.mark.parametrize(
    "state, cause", [("finished", ""), ("stopped", ""), ("failed", "diverged"), ("failed", "memory"), ("failed", "settings")]
)
def test_an_ended_record_keeps_its_result_and_drops_what_was_needed_to_continue(folder, state, cause):
    end_record(folder, state, "for a reason", cause)
    assert read_record(folder).result == replace(RESULT, state=state, reason="for a reason", cause=cause)
    assert read_last(folder) is None and not (folder / LAST).parent.exists()
    end_record(folder, "failed", "again")
    assert read_record(folder).result.reason == "again"


def test_an_interrupted_record_keeps_what_is_needed_to_continue(folder):
    end_record(folder, "interrupted", "Ctrl-C")
    assert read_record(folder).result == replace(RESULT, reason="Ctrl-C")
    assert read_last(folder) == b"tensors"


def test_a_crashed_record_keeps_what_is_needed_to_continue_because_it_may_be_tried_again(folder):
    end_record(folder, "failed", "its process died", "crash")
    assert read_record(folder).result == replace(RESULT, state="failed", reason="its process died", cause="crash")
    assert read_last(folder) == b"tensors"
    end_record(folder, "finished", "trained all 3 epochs")
    assert read_record(folder).result.cause == "" and read_last(folder) is None


def test_ending_a_record_without_a_result_writes_none(tmp_path):
    end_record(tmp_path, "failed", "for a reason")
    assert names(tmp_path) == set()


def test_what_is_needed_to_continue_is_the_last_that_was_kept(folder):
    assert read_last(folder) == b"tensors"
    write_last(folder, b"later tensors")
    assert read_last(folder) == b"later tensors" and names((folder / LAST).parent) == {"state.pt"}


def test_predictions_are_read_as_they_were_written_and_hold_no_pickle(folder):
    ids = ("a/mask1.jpg", "b/längere Name.png")
    heads = [np.random.default_rng(0).random((2, classes)) for classes in (3, 2)]
    write_predictions(folder, Predictions(ids, heads, epoch=2))
    read = read_predictions(folder)
    assert (read.ids, read.epoch) == (ids, 2) and all(head.dtype == np.float32 for head in read.heads)
    for head, expected in zip(read.heads, heads, strict=True):
        np.testing.assert_array_equal(head, expected.astype(np.float32))


def test_records_come_by_number_not_by_name(tmp_path, make_config):
    for number in (10, 9, 1):
        start_record(trial_folder(tmp_path, number), make_config(seed=number))
    (tmp_path / "trials" / "3").mkdir()
    (tmp_path / "trials" / "notes").mkdir()
    assert [folder.name for folder in list_trials(tmp_path)] == ["1", "9", "10"]
    assert [(record.number, record.config.seed) for record in read_records(tmp_path)] == [(1, 1), (9, 9), (10, 10)]
    assert read_records(tmp_path / "elsewhere") == []


def test_a_record_has_a_model_while_its_file_is_there(folder):
    (folder / MODEL).write_bytes(b"")
    assert read_record(folder).has_model


@pytest.mark.parametrize("content", [b"", b"{", b"3", b'["x"]', b'{"state": 3}', b"\xff"])
@pytest.mark.parametrize("file", ["config.json", "result.json", "rungs.json"])
def test_a_damaged_record_is_an_error_and_not_half_a_record(folder, file, content):
    (folder / file).write_bytes(content)
    with pytest.raises(DAMAGE):
        read_record(folder)


@pytest.mark.parametrize("content", [b"{", b'{"epoch": 1}\n{"epoch"', b"\xff"])
def test_damaged_reports_are_an_error_and_not_half_a_record(folder, content):
    (folder / "reports.jsonl").write_bytes(content)
    with pytest.raises(DAMAGE):
        read_record(folder)


@pytest.mark.parametrize(
    "file, values",
    [
        ("result.json", {"state": "asleep"}),
        ("result.json", {"best_epoch": "last"}),
        ("result.json", {"attempt": None}),
        ("result.json", {"cause": "moonlight"}),
    ],
)
def test_a_result_with_a_value_of_another_kind_is_damage(folder, file, values):
    write_json(folder / file, json.loads((folder / file).read_text()) | values)
    with pytest.raises(DAMAGE, match=next(iter(values))):
        read_record(folder)


@pytest.mark.parametrize("content", ["{}", '[{"epoch": "one", "score": 0.1, "place": 0, "cutoff": null, "passed": true}]'])
def test_decisions_of_another_kind_are_damage(folder, content):
    (folder / "rungs.json").write_text(content)
    with pytest.raises(DAMAGE):
        read_record(folder)


def test_a_run_is_read_as_it_was_written(tmp_path):
    refit = replace(CARD, refit_of="faces", origins=(Origin(7, 3, 0.5), Origin(2, 1, 0.4)))
    for card in (CARD, replace(CARD, predicts=("mask", "age")), refit):
        write_run(tmp_path / "faces", card)
        assert read_run(tmp_path / "faces") == card
    assert read_run(tmp_path / "faces").scheme.sizes == (3, 2)


def test_a_run_of_before_metric_and_attributes_were_noted_is_read_too(tmp_path):
    write_run(tmp_path / "faces", CARD)
    values = json.loads((tmp_path / "faces" / "run.json").read_text())
    write_json(tmp_path / "faces" / "run.json", {name: value for name, value in values.items() if name not in ("predicts", "metric")})
    assert read_run(tmp_path / "faces") == CARD


@pytest.mark.parametrize("place, refit_of", [("runs/faces", "faces"), ("elsewhere/faces", "runs/faces")])
def test_a_refit_names_the_run_it_comes_from_beside_it_or_by_its_path(tmp_path, monkeypatch, place, refit_of):
    monkeypatch.chdir(tmp_path)
    refit = Path(place).with_name("faces-refit")
    assert searched_run(refit, replace(CARD, refit_of=refit_of)) == Path("runs/faces")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"attributes": 3}', b'{"origins": [3]}'])
def test_a_damaged_run_is_refused_with_its_file_and_the_fix(tmp_path, content):
    write_run(tmp_path / "faces", CARD)
    (tmp_path / "faces" / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"faces/run.json .*\(.*backup"):
        read_run(tmp_path / "faces")


def test_a_run_is_found_by_its_name_and_by_its_path(tmp_path):
    write_run(tmp_path / "runs" / "faces", CARD)
    assert find_run("faces", tmp_path / "runs") == tmp_path / "runs" / "faces"
    assert find_run(str(tmp_path / "runs" / "faces"), tmp_path / "elsewhere") == tmp_path / "runs" / "faces"


def test_a_run_that_there_is_not_is_refused_with_those_there_are(tmp_path):
    for name in ("night", "faces"):
        write_run(tmp_path / name, CARD)
    (tmp_path / "half").mkdir()
    with pytest.raises(RunError, match=r"'face' in .*faces, night$"):
        find_run("face", tmp_path)
    with pytest.raises(RunError, match=r"python -m tuner.run"):
        find_run("face", tmp_path / "half")


def test_trials_rank_by_score_and_where_they_predict_different_targets_in_turns():
    def record(number, score, *targets):
        report = {"epoch": 1, "score": score, "target_scores": dict.fromkeys(targets, score)}
        result = Result("finished", "ran all epochs", 1, "split", "CPU", "0.1")
        return Record(Path(str(number)), number, None, (report,), result)

    alike = [record(0, 0.4, "age"), record(1, 0.6, "age"), record(2, 0.6, "age")]
    assert [one.number for one in ranked(alike, 1)] == [1, 2, 0]
    others = [record(3, 0.9, "gender"), record(4, 0.95, "gender")]
    assert [one.number for one in ranked([*others, *alike], 1)] == [1, 4, 2, 3, 0]

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from trainables.record import (
    LAST,
    MODEL,
    Predictions,
    Result,
    RunCard,
    RunError,
    end_record,
    find_run,
    read_last,
    read_predictions,
    read_record,
    read_records,
    read_run,
    start_record,
    trial_folder,
    write_json,
    write_last,
    write_predictions,
    write_reports,
    write_result,
    write_run,
    write_whole,
)

ATTRIBUTES = (("mask", ("worn", "incorrect", "absent")), ("age", ("<30", ">=30")))
CARD = RunCard("faces", "effnet.yaml", "data", (30,), 0, "abcd", ATTRIBUTES, 3, 4, "python -m tuner.run")
RESULT = Result("interrupted", "still at work", 2, "abcd", "CPU", "0.1", {"torch": "2"})


@pytest.fixture
def folder(tmp_path, make_config):
    """The record of a trial that is at work in its third epoch."""
    folder = trial_folder(tmp_path, 7)
    start_record(folder, make_config())
    write_reports(folder, [{"epoch": 1, "macro_f1": 0.1}, {"epoch": 2, "macro_f1": 0.3}])
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
    write_whole(tmp_path / "file", b"old")
    with pytest.raises(OSError), small_disk():
        write_whole(tmp_path / "file", bytes(10_000))
    assert (tmp_path / "file").read_bytes() == b"old" and names(tmp_path) == {"file"}


def test_a_first_write_that_fails_midway_leaves_nothing(tmp_path):
    with pytest.raises(OSError), small_disk():
        write_whole(tmp_path / "file", bytes(10_000))
    assert names(tmp_path) == set()


def test_a_whole_write_takes_the_old_files_place(tmp_path):
    for content in (b"old", b"new and longer"):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content and names(tmp_path) == {"file"}


def test_what_cannot_be_said_in_json_is_not_written(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"a": {1}})
    assert names(tmp_path) == set()


def test_a_record_is_read_as_it_was_written(folder, make_config):
    record = read_record(folder)
    assert (record.number, record.folder, record.config, record.result) == (7, folder, make_config(), RESULT)
    assert record.reports == ({"epoch": 1, "macro_f1": 0.1}, {"epoch": 2, "macro_f1": 0.3})
    assert record.best == {"epoch": 2, "macro_f1": 0.3}
    assert not record.has_model


def test_config_json_holds_every_effective_value(folder, make_config):
    assert json.loads((folder / "config.json").read_text()) == make_config().values()


def test_a_trial_that_died_before_its_result_reads_as_interrupted(tmp_path, make_config):
    start_record(trial_folder(tmp_path, 0), make_config())
    record = read_record(trial_folder(tmp_path, 0))
    assert record.result.state == "interrupted" and record.reports == () and record.best is None


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_an_ended_record_keeps_its_result_and_drops_what_was_needed_to_continue(folder, state):
    end_record(folder, state, "for a reason")
    assert read_record(folder).result == replace(RESULT, state=state, reason="for a reason")
    assert read_last(folder) is None and not (folder / LAST).parent.exists()
    end_record(folder, "failed", "again")
    assert read_record(folder).result.reason == "again"


def test_an_interrupted_record_keeps_what_is_needed_to_continue(folder):
    end_record(folder, "interrupted", "Ctrl-C")
    assert read_record(folder).result == replace(RESULT, reason="Ctrl-C")
    assert read_last(folder) == b"tensors"


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
    write_predictions(folder, Predictions(ids, heads))
    read = read_predictions(folder)
    assert read.ids == ids and all(head.dtype == np.float32 for head in read.heads)
    for head, expected in zip(read.heads, heads, strict=True):
        np.testing.assert_array_equal(head, expected.astype(np.float32))


def test_records_come_by_number_not_by_name(tmp_path, make_config):
    for number in (10, 9, 1):
        start_record(trial_folder(tmp_path, number), make_config(seed=number))
    (tmp_path / "trials" / "3").mkdir()
    assert [(record.number, record.config.seed) for record in read_records(tmp_path)] == [(1, 1), (9, 9), (10, 10)]
    assert read_records(tmp_path / "elsewhere") == []


def test_a_record_has_a_model_while_its_file_is_there(folder):
    (folder / MODEL).write_bytes(b"")
    assert read_record(folder).has_model


@pytest.mark.parametrize("file", ["config.json", "reports.jsonl", "result.json"])
def test_a_damaged_record_is_an_error_and_not_half_a_record(folder, file):
    (folder / file).write_text("{")
    with pytest.raises(ValueError):
        read_record(folder)


def test_a_run_is_read_as_it_was_written(tmp_path):
    write_run(tmp_path / "faces", CARD)
    assert read_run(tmp_path / "faces") == CARD
    assert read_run(tmp_path / "faces").scheme.sizes == (3, 2)


def test_a_run_is_found_by_its_name_and_by_its_path(tmp_path):
    write_run(tmp_path / "runs" / "faces", CARD)
    assert find_run("faces", tmp_path / "runs") == tmp_path / "runs" / "faces"
    assert find_run(str(tmp_path / "runs" / "faces"), tmp_path / "elsewhere") == tmp_path / "runs" / "faces"


def test_a_run_that_there_is_not_is_refused_with_those_there_are(tmp_path):
    for name in ("night", "faces"):
        write_run(tmp_path / name, CARD)
    (tmp_path / "half").mkdir()
    with pytest.raises(RunError, match=r"there is no run 'face' in .*; there are faces, night$"):
        find_run("face", tmp_path)
    with pytest.raises(RunError, match=r"there are none yet: python -m tuner.run makes one"):
        find_run("face", tmp_path / "half")

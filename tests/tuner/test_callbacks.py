import json

import pytest
from ray.tune.experiment import Trial

from search_spaces.read import read_space
from tests.tuner.stoppers.reports import F1, pruner_of
from trainables.record import (
    Decision,
    Result,
    read_decisions,
    read_record,
    read_result,
    start_record,
    trial_folder,
    write_reports,
    write_result,
)
from tuner.board import Board
from tuner.callbacks import Driver
from tuner.requests import Inbox
from tuner.retention import Retention
from tuner.stoppers.soft_stop import SoftStop

NO_FOLD = {"iteration": 0, "trials": []}
EPOCHS = 3


@pytest.fixture
def space(tiny_space):
    return read_space(tiny_space)


@pytest.fixture
def driver(space, tmp_path):
    (tmp_path / "run").mkdir()
    return Driver(
        tmp_path / "run",
        space=space,
        board=Board(8, EPOCHS, "mask", F1),
        pruner=pruner_of(epochs=EPOCHS, spared=lambda number: True),
        soft_stop=SoftStop(None),
        inbox=Inbox(tmp_path / "run"),
        retention=Retention(tmp_path / "run", 2, F1),
        show=lambda row: None,
    )


@pytest.fixture
def proposed(make_config):
    """Ray's own trial of a number, not yet started."""

    def make(number: int) -> Trial:
        return Trial("train", stub=True, config={"number": number, "values": make_config(epochs=EPOCHS).values()})

    return make


def report(number: int, epoch: int, score: float) -> dict:
    """What a trial tells Tune after an epoch."""
    return {"number": number, "epoch": epoch, "score": score, "best": score, "photos": 10, "seconds": 1.0, "last": epoch == EPOCHS}


def train(driver, trial, scores) -> None:
    driver.on_trial_start(**NO_FOLD, trial=trial)
    for epoch, score in enumerate(scores, start=1):
        result = report(trial.config["number"], epoch, score)
        driver.on_trial_result(**NO_FOLD, trial=trial, result=result)
        trial.update_last_result(result)
    driver.on_trial_complete(**NO_FOLD, trial=trial)


def test_a_trial_whose_process_never_came_up_is_a_failed_one_and_nothing_breaks(driver, proposed):
    driver.on_trial_error(**NO_FOLD, trial=proposed(4))
    assert driver._board.rows[4].state == "failed"
    assert read_result(trial_folder(driver._run, 4)) is None


def test_a_trial_that_gets_on_has_all_its_retries_again(driver, proposed):
    trial = proposed(0)
    driver.on_trial_start(**NO_FOLD, trial=trial)
    trial.run_metadata.num_failures = 2
    driver.on_trial_result(**NO_FOLD, trial=trial, result={"number": 0, "failed": "the loss is nan", "cause": "diverged"})
    assert trial.run_metadata.num_failures == 2
    driver.on_trial_result(**NO_FOLD, trial=trial, result=report(0, 1, 0.5))
    assert trial.run_metadata.num_failures == 0


def test_an_epoch_that_is_trained_again_counts_once_and_is_no_progress(driver, proposed):
    trial = proposed(0)
    driver.on_trial_start(**NO_FOLD, trial=trial)
    for epoch in (1, 2):
        driver.on_trial_result(**NO_FOLD, trial=trial, result=report(0, epoch, 0.5))
    trial.run_metadata.num_failures = 1
    driver.on_trial_result(**NO_FOLD, trial=trial, result=report(0, 1, 0.5))
    row = driver._board.rows[0]
    assert (row.epoch, row.images, row.seconds) == (2, 20, 2.0) and trial.run_metadata.num_failures == 1


def test_an_ended_trial_leaves_no_statistics_in_memory(driver, proposed):
    trial = proposed(0)
    train(driver, trial, [0.1, 0.2, 0.3])
    assert trial.last_result["score"] == 0.3
    assert trial.run_metadata.metric_analysis == trial.run_metadata.metric_n_steps == {}


def test_the_fidelity_of_the_rungs_is_shown_and_kept_as_trials_run_to_the_end(driver, proposed):
    for number, (early, final) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        train(driver, proposed(number), [early, 0.4, final])
    kept = json.loads((driver._run / "fidelity.json").read_text())["rungs"]
    assert {(entry["epoch"], entry["trials"], entry["correlation"]) for entry in kept} == {(1, 3, 1.0), (2, 3, None)}
    assert driver._board.notes == ["rank correlation with the final epoch: epoch 1: 1.00 (3 trials)"]


def test_what_the_pruner_found_is_in_the_record_in_the_order_of_its_rungs(driver, make_config):
    folder = trial_folder(driver._run, 3)
    start_record(folder, make_config())
    found = [Decision(1, 0.5, 0, None, True), Decision(2, 0.4, 1, 0.6, False)]
    for decision in found:
        driver.decided(3, decision)
    assert list(read_decisions(folder)) == found


def test_trials_of_earlier_commands_are_on_the_board_and_those_that_resume_when_they_start_again(driver, proposed, make_config):
    records = []
    for number, state in ((0, "finished"), (1, "interrupted")):
        folder = trial_folder(driver._run, number)
        start_record(folder, make_config(epochs=EPOCHS))
        epochs = EPOCHS if state == "finished" else 2
        write_reports(folder, [report(number, epoch, 0.1 * epoch) for epoch in range(1, epochs + 1)])
        write_result(folder, Result(state, "", epochs, "split", "CPU", "code"))
        records.append(read_record(folder))
    driver.know(records[:1], records[1:])
    assert list(driver._board.rows) == [0] and driver._board.rows[0].trained == 0
    trial = proposed(1)
    driver.on_trial_start(**NO_FOLD, trial=trial)
    driver.on_trial_result(**NO_FOLD, trial=trial, result=report(1, 3, 0.4))
    row = driver._board.rows[1]
    assert (row.state, row.epoch, row.trained, row.images) == ("running", 3, 1, 10)

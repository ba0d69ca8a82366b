"""A race of a search's finalists: trained fold by fold, decided from the records alone, answered by one model a fold."""

import os
import shutil
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from analysis.members.trials import EVERY_FOLD, load_runs
from tests.conftest import already, never
from tests.faults.remains import remains
from trainables.metrics import BY_NAME
from trainables.models.settings import FrozenSettings
from trainables.record import (
    FINALISTS,
    MODEL,
    SPLIT,
    RunError,
    read_json,
    read_predictions,
    read_record,
    read_records,
    read_run,
    trial_folder,
)
from trainables.restore_data import read_folds
from tuner import budget
from tuner.callbacks import Driver
from tuner.cli import Options, TrialCount
from tuner.conclusion import conclude
from tuner.finalists import choose_finalists, plan_race
from tuner.racing import is_over, race
from tuner.refits import RefitOptions
from tuner.refitting import refit
from tuner.searchers.staged import StagedSearcher
from tuner.searching import search
from tuner.settings import RunSettings

# Trials 0 and 1 learn, 2 and 3 cannot.
CHANGES = ("run/epochs=3", "run/grace=3", "data/folds=3")


def raced(start=never, *, run: str = "faces", number: int | None = 3, **options) -> tuple[int, str]:
    """Exit code and words of the command in this process."""
    said = StringIO()
    return race(run, Options(finalists=number, **options), Console(file=said, width=200), start), said.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def done(home, demo, tiny_space, ray_cluster) -> tuple[Path, str]:
    """A search that ended with the race of three finalists and with the answer, and what the command said before that."""
    said = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        options = Options(
            space=str(tiny_space), data=demo, trials=TrialCount(4), name="faces", keep=4, finalists=3, answer=True, changes=CHANGES
        )
        code = search(options, Console(file=said, width=200), already(ray_cluster))
    assert code == 0, said.getvalue()
    return home / "runs" / "faces", said.getvalue()


@pytest.fixture(autouse=True)
def inside(home, done, monkeypatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def unraced(done) -> Path:
    """A copy of the search without its race."""
    run, _ = done
    return Path(shutil.copytree(run, run.with_name("unraced"), ignore=shutil.ignore_patterns(FINALISTS, "ensemble")))


def test_finalists_train_on_all_other_folds_and_those_that_are_significantly_worse_leave(done):
    run, words = done
    card, records = read_run(run / FINALISTS), read_records(run / FINALISTS)
    by_trial: dict[int, list] = {}
    for record in records:
        by_trial.setdefault(card.origins[record.number].trial, []).append(record)
    assert {len(group) for group in by_trial.values()} == {2} and len(by_trial) == 3
    left = [trial for trial, group in by_trial.items() if any(one.result.state == "stopped" for one in group)]
    stay = [trial for trial in by_trial if trial not in left]
    assert left and stay, "this proves nothing"
    for trial in stay:
        assert [(one.result.state, one.config.data.fold) for one in by_trial[trial]] == [("finished", 1), ("finished", 2)]
    for trial in left:
        first, then = by_trial[trial]
        assert first.result.state == "finished" and not then.reports and not then.has_model
        assert f"significantly worse than trial {stay[0]}" in then.result.reason or len(stay) > 1
    assert all(f"{trial} " in words for trial in by_trial)


def test_the_search_ends_with_the_answer_of_what_stays(done):
    run, _ = done
    scores = read_json(run / "ensemble" / "scores.json", "scores")
    voted = {f"{trial['run']}/{trial['number']}": trial["models"] for member in scores["members"] for trial in member["trials"]}
    assert voted.keys() <= {trial.name for trial in load_runs([run]).trials} and set(voted.values()) == {3}, "one model a fold"
    assert scores["settings"]["top"] == 3 and scores["answer"] in scores["answers"]


def test_a_search_that_goes_on_races_what_it_finds_meanwhile(done):
    run, _ = done
    card, records = read_run(run), read_records(run)
    assert is_over(run, card, 3) and not is_over(run, card, 4)
    assert len(choose_finalists(records, card, BY_NAME[card.metric], 4)) == 4


def test_a_finalist_differs_from_its_searched_trial_in_the_fold_alone(done):
    run, _ = done
    card = read_run(run / FINALISTS)
    for record in read_records(run / FINALISTS):
        then = read_record(trial_folder(run, card.origins[record.number].trial)).config.values()
        now = record.config.values()
        assert now.pop("data") | {"fold": 0} == then.pop("data") and now == then


def test_what_stays_answers_for_everybody_with_one_model_a_fold_without_being_asked_for(done):
    run, _ = done
    runs = load_runs([run])
    table = pd.read_csv(run / SPLIT)
    assert runs.part == EVERY_FOLD and runs.asked == [run]
    assert sorted(runs.valid.ids) == sorted(table["photo"][table["part"] != "holdout"])
    card = read_run(run / FINALISTS)
    stay = {
        card.origins[one.number].trial
        for one in read_records(run / FINALISTS)
        if one.result.state == "finished" and one.config.data.fold == 2
    }
    assert {trial.name for trial in runs.trials} == {f"faces/{number}" for number in stay}
    for trial in runs.trials:
        own = [one for one in read_records(run / FINALISTS) if f"faces/{card.origins[one.number].trial}" == trial.name]
        assert list(trial.models) == [trial.record.model, *(one.model for one in own)]
        predicted = {}
        for one in [trial.record, *own]:
            found = read_predictions(one.folder)
            predicted |= zip(found.ids, found.heads[0], strict=True)
        whole = np.array([predicted[name] for name in runs.valid.ids])
        truth = runs.valid.truth(trial.task.scheme)
        assert trial.score == pytest.approx(f1_score(truth, whole.argmax(axis=1), average="macro", zero_division=0), abs=1e-9)


@pytest.mark.nightly
def test_a_race_that_is_interrupted_resumes_and_decides_the_same(done, unraced, ray_cluster, monkeypatch, tmp_path):
    run, _ = done
    copy = Path(shutil.copytree(unraced, tmp_path / "runs" / "faces"))
    hear = Driver.on_trial_result

    def interrupt(driver: Driver, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        hear(driver, iteration, trials, trial, result, **info)
        if (result.get("number"), result.get("epoch")) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "on_trial_result", interrupt)
        code, words = raced(already(ray_cluster), run=str(copy))
    assert code == 143 and "tuner.race --run" in words
    assert read_record(trial_folder(copy / FINALISTS, 1)).result.state == "interrupted"

    with pytest.raises(RunError, match="tuner.race --run"):
        refit(RefitOptions(), Options(resume=str(copy / FINALISTS)), Console(quiet=True), never)
    assert raced(already(ray_cluster), run=str(copy), number=None)[0] == 0
    assert remains(copy / FINALISTS / "trials") == remains(run / FINALISTS / "trials")


# What to race


@pytest.mark.parametrize("number", [1, 2, 3, 9])
def test_the_best_is_a_finalist_and_the_baseline_and_the_best_probe_are_with_it(unraced, number):
    records, card = read_records(unraced), read_run(unraced)
    worst = min(records, key=lambda one: one.best["score"])
    frozen = worst.config.model_copy(update={"model": FrozenSettings(backbone="x", freeze="backbone", heads="probe")})
    records[worst.number] = replace(worst, config=frozen)
    ranked = [one.number for one in sorted(records, key=lambda one: -one.best["score"])]
    found = [one.number for one in choose_finalists(records, card, BY_NAME[card.metric], number)]
    assert set(found) == set([*dict.fromkeys([ranked[0], 0, worst.number, *ranked])][:number])
    assert found == [one for one in ranked if one in found]


def test_a_searched_trial_stands_for_its_fold_unless_its_weights_are_gone(unraced, tmp_path):
    copy = Path(shutil.copytree(unraced, tmp_path / "faces"))
    (trial_folder(copy, 1) / MODEL).unlink()
    records = {one.number: one for one in read_records(copy)}
    planned = plan_race([records[0], records[1]], read_folds(copy))
    assert [(one.origin.trial, one.config.data.fold) for one in planned] == [(0, 1), (1, 1), (0, 2), (1, 2), (1, 0)]


def test_where_there_are_no_other_folds_or_no_finalists_it_is_refused_in_words(unraced, tmp_path):
    copy = Path(shutil.copytree(unraced, tmp_path / "faces"))
    table = copy / SPLIT
    content = table.read_text()
    table.write_text(content.replace(",fold 1,", ",train,").replace(",fold 2,", ",train,"))
    with pytest.raises(RunError, match="no other folds"):
        raced(run=str(copy))
    shutil.rmtree(copy / "trials")
    with pytest.raises(RunError, match="no finalists"):
        raced(run=str(copy))
    assert not (copy / FINALISTS).exists()


def test_a_stage_begins_when_the_one_before_has_ended_and_without_those_that_are_out():
    asked = []

    def close(stage: int) -> set[int]:
        asked.append(stage)
        return {3, 5} if stage else set()

    given = {number: {} for number in range(6)}
    searcher = StagedSearcher(given, slots=lambda: 2, stages=[0, 0, 1, 1, 2, 2], close=close, alone=lambda: False)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert [first["number"], second["number"]] == [0, 1] and searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"last": True})
    assert searcher.suggest("c") is None and asked == [0]
    searcher.on_trial_complete("b", {"last": True})
    assert searcher.suggest("c")["number"] == 2 and asked == [0, 1]
    searcher.on_trial_complete("c", {"last": True})
    assert searcher.suggest("d")["number"] == 4 and asked == [0, 1, 2]
    searcher.on_trial_complete("d", {"last": True})
    assert searcher.suggest("e") == StagedSearcher.FINISHED


def test_one_contestant_alone_waits_for_nothing():
    searcher = StagedSearcher(
        {number: {} for number in range(6)},
        slots=lambda: 3,
        stages=[0, 0, 1, 1, 2, 2],
        close=lambda stage: {1, 3, 5},
        alone=lambda: True,
    )
    assert [searcher.suggest(name)["number"] for name in "abc"] == [0, 2, 4]


@pytest.mark.nightly
def test_without_time_for_all_the_best_race_and_the_others_can_later(done, unraced, ray_cluster, monkeypatch, tmp_path):
    """The clock: no time for more than one before the first fold."""
    run, _ = done
    copy = Path(shutil.copytree(unraced, tmp_path / "runs" / "faces"))
    with monkeypatch.context() as patch:
        patch.setattr(budget, "race_seconds", lambda number, *rest: 100.0 * number)
        assert raced(already(ray_cluster), run=str(copy), time_budget=150.0)[0] == 0
    card = read_run(copy / FINALISTS)
    states = {(card.origins[one.number].trial, one.result.state) for one in read_records(copy / FINALISTS)}
    best = max(read_records(unraced), key=lambda one: one.best["score"]).number
    assert {trial for trial, state in states if state == "finished"} == {best}
    assert {state for trial, state in states if trial != best} == {"interrupted"}
    assert {trial.name for trial in load_runs([copy]).trials} == {f"faces/{best}"}

    assert raced(already(ray_cluster), run=str(copy), number=None)[0] == 0
    assert all(record.result.state in ("finished", "stopped") for record in read_records(copy / FINALISTS))
    predicted, whole = (remains(one / FINALISTS / "trials" / "0") for one in (copy, run))
    assert predicted == whole


def test_nothing_follows_a_search_in_which_no_trial_has_a_score(unraced, tmp_path):
    copy = Path(shutil.copytree(unraced, tmp_path / "faces"))
    for record in read_records(copy):
        (record.folder / "reports.jsonl").unlink()
    plan = SimpleNamespace(run=copy, settings=RunSettings(metric="f1_macro", answer=True))
    said = StringIO()
    assert conclude(plan, Options(), None, 0.0, Console(file=said), never) == 0 and said.getvalue() == ""
    assert not (copy / "ensemble").exists() and not (copy / FINALISTS).exists()


def test_finalists_are_no_search_and_are_resumed_by_their_own_command(done):
    run, _ = done
    place, console = str(run / FINALISTS), Console(quiet=True)
    tried = (
        lambda: search(Options(resume=place), console, never),
        lambda: refit(RefitOptions(), Options(resume=place), console, never),
        lambda: refit(RefitOptions(run=place, seeds=1), Options(), console, never),
        lambda: raced(run=place),
    )
    for one in tried:
        with pytest.raises(RunError, match="tuner.race --run faces"):
            one()

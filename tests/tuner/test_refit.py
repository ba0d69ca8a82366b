import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from analysis.members.trials import load_runs
from search_spaces.schema import SpaceError
from tests.conftest import already, edit, never
from tests.faults.commands import start
from tests.messages import missing, mistaken
from trainables.data.images import DataError
from trainables.data.splits import NO_FOLD
from trainables.record import DAMAGE, FIRST, MODEL, SPLIT, RunError, read_predictions, read_record, read_records, read_run, trial_folder
from trainables.restore_data import read_folds
from trainables.trial import Job, train
from tuner.cli import Options, TrialCount
from tuner.refit import main
from tuner.refits import RefitOptions, choose, plan_refits, space_of
from tuner.refitting import refit
from tuner.replay import replay
from tuner.resume import fits, verify
from tuner.searching import search

EPOCHS = 3


def refitted(refit_options: RefitOptions, start=never, **options) -> tuple[int, str]:
    """Exit code and words of a command in this process."""
    said = StringIO()
    return refit(refit_options, Options(**options), Console(file=said, width=200), start), said.getvalue()


def refused(refit_options: RefitOptions, start=never, **options) -> str:
    """The one message of a command that the user has to fix; no run may begin."""
    before = sorted(Path("runs").iterdir())
    with pytest.raises((RunError, DataError, SpaceError)) as caught:
        refitted(refit_options, start, **options)
    assert sorted(Path("runs").iterdir()) == before
    return str(caught.value)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def inside(home, searched, monkeypatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def searched(home, demo, tiny_space, ray_cluster) -> Path:
    """A search of two trials, both to their end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        changes = (f"run/epochs={EPOCHS}", "run/grace=1")
        options = Options(space=str(tiny_space), data=demo, trials=TrialCount(2), name="faces", early_stopping=False, changes=changes)
        assert search(options, Console(quiet=True), already(ray_cluster)) == 0
    return home / "runs" / "faces"


@pytest.fixture(scope="module")
def best(searched) -> int:
    return max(read_records(searched), key=lambda record: record.best["score"]).number


@pytest.fixture
def copied(searched) -> Path:
    """A copy of the search that a test may change, gone after it."""
    yield shutil.copytree(searched, searched.with_name("copied"))
    shutil.rmtree(searched.with_name("copied"))


@pytest.fixture(scope="module")
def folds(home, searched, ray_cluster) -> tuple[Path, str]:
    """The best configuration on both folds, and what the command said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        code, words = refitted(RefitOptions(run="faces", top=1, folds=2), already(ray_cluster))
    assert code == 0, words
    return home / "runs" / "faces-refit", words


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Train a configuration in this process, with the fold that it names."""

    def train_alone(config) -> Path:
        at_fold = replace(data, split=replace(data.split, fold=config.data.fold))
        job = Job(tmp_path_factory.mktemp("alone"), at_fold, "test", threads=1)
        train(0, config, job, report=lambda values: None)
        return trial_folder(job.run, 0)

    return train_alone


# Every fold


def test_every_person_but_the_hold_out_is_predicted_exactly_once(folds, searched):
    run, _ = folds
    table = pd.read_csv(run / SPLIT)
    predicted = []
    for record in read_records(run):
        ids = read_predictions(record.folder).ids
        assert set(ids) == set(table["photo"][table["part"] == f"fold {record.config.data.fold}"])
        predicted += ids
    assert sorted(predicted) == sorted(table["photo"][table["part"] != "holdout"])
    assert (run / SPLIT).read_bytes() == (searched / SPLIT).read_bytes()


def test_a_refit_on_a_fold_is_what_training_on_all_others_gives_bitwise(folds, searched, best, alone):
    run, _ = folds
    then = read_record(trial_folder(searched, best))
    for record in read_records(run):
        values = then.config.values()
        values["data"]["fold"] = record.number
        assert record.config.values() == values, "all other settings are as they were"
        folder = alone(record.config)
        assert (folder / MODEL).read_bytes() == (record.folder / MODEL).read_bytes()
        assert np.array_equal(read_predictions(folder).heads[0], read_predictions(record.folder).heads[0])
    assert (trial_folder(run, 0) / MODEL).read_bytes() == (then.folder / MODEL).read_bytes(), "the search's own fold and seed"


def test_a_refit_leaves_a_run_like_others_that_says_where_it_comes_from(folds, searched, best):
    run, _ = folds
    card, then = read_run(run), read_run(searched)
    assert (card.name, card.refit_of, card.trials, card.epochs) == ("faces-refit", "faces", 2, EPOCHS)
    assert (card.split, card.data, card.predicts, card.attributes) == (then.split, then.data, then.predicts, then.attributes)
    assert [origin.trial for origin in card.origins] == [best, best]
    for number, record in enumerate(read_records(run)):
        assert record.result.state == "finished" and record.result.split == card.split and record.has_model
        assert record.result.notes == (f"refit of faces/{best}: fold {number}, seed 0",)
    assert {file.name for file in run.iterdir()} == {
        "run.json",
        "split.csv",
        "summary.json",
        "ray.log",
        "optuna-journal.log",
        ".lock",
        "trials",
        "trials.parquet",
    }


def test_the_summary_pools_the_folds_as_one_set_of_predictions(folds, best):
    run, words = folds
    classes, table = read_run(run).scheme.class_names(), pd.read_csv(run / SPLIT, index_col="photo")
    truth, answers, scores = [], [], []
    for record in read_records(run):
        found = read_predictions(record.folder)
        own = [classes.index(name) for name in table.loc[list(found.ids), "class"]]
        scores.append(f1_score(own, found.heads[0].argmax(axis=1), labels=range(18), average="macro", zero_division=0))
        truth, answers = truth + own, [*answers, *found.heads[0].argmax(axis=1)]
    pooled = f1_score(truth, answers, labels=range(18), average="macro", zero_division=0)
    (row,) = [line for line in words.splitlines() if line.strip().startswith(f"faces/{best} ")]
    cells = row.split()
    assert cells[:5] == [f"faces/{best}", "0", "2", "of", "2"]
    assert cells[5] == f"{pooled:.3f}" and float(cells[6]) <= pooled <= float(cells[8])
    assert cells[9:] == [f"{np.mean(scores):.3f}", f"{np.std(scores, ddof=1):.3f}", f"{read_run(run).origins[0].score:.3f}"]
    assert f"python -m tuner.refit --run faces --trials {best} --all-data" in words


def test_refits_on_every_fold_are_one_trial_of_an_ensemble_evaluated_on_all_groups(folds, searched, best):
    run, _ = folds
    runs = load_runs([searched, run])
    assert [str(trial) for trial in runs.trials] == ["faces-refit/0+1"]
    assert runs.part == "every fold" and len(runs.trials[0].models) == 2
    (left_out,) = runs.left_out
    assert str(left_out).startswith("2 trials ") and str(left_out).endswith(": faces/0, faces/1")


def test_a_search_does_not_resume_refits_nor_a_refit_with_a_search(folds):
    with pytest.raises(RunError, match="faces-refit .*faces.*: python -m tuner.refit --resume faces-refit"):
        search(Options(resume="faces-refit"), Console(quiet=True), never)
    assert "python -m tuner.run --resume faces" in refused(RefitOptions(), resume="faces")
    assert not missing(refused(RefitOptions(run="faces-refit", seeds=1)), "faces-refit ", "--run faces")


@pytest.mark.nightly
def test_a_killed_refit_resumes_to_the_same_models(home, searched, folds, best, ray_cluster):
    command = start(home, "tuner.refit", "--run", "faces", "--trials", str(best), "--folds", "2", "--name", "killed", "--no-dashboard")
    run = home / "runs" / "killed"
    try:
        command.wait_for(lambda: list(run.glob("trials/*/reports.jsonl")))
    finally:
        command.kill()
    left = read_records(run)
    assert [record.number for record in left] == [0, 1], "all trials are laid out before the first is trained"
    assert any(record.result.state == "interrupted" for record in left)
    if left[1].reports == ():
        (trial_folder(run, 1) / "result.json").write_text("{")
    code, words = refitted(RefitOptions(), already(ray_cluster), resume="killed")
    assert code == 0, words
    for record, other in zip(read_records(run), read_records(folds[0]), strict=True):
        assert record.result.state == "finished" and record.result.notes == other.result.notes
        assert (record.folder / MODEL).read_bytes() == (other.folder / MODEL).read_bytes()


# All data


@pytest.fixture(scope="module")
def on_all_data(home, searched, best, ray_cluster) -> tuple[Path, str]:
    """The best configuration on all but the hold-out, with two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        code, words = refitted(RefitOptions(run="faces", top=1, all_data=True, seeds=2), already(ray_cluster), name="all")
    assert code == 0, words
    return home / "runs" / "all", words


@pytest.mark.nightly
def test_all_data_trains_all_but_the_hold_out_and_keeps_the_last_epoch(on_all_data, searched, best, alone, data):
    run, words = on_all_data
    then, records = read_record(trial_folder(searched, best)), read_records(run)
    table = pd.read_csv(run / SPLIT)
    everyone = (table["part"] != "holdout").sum()
    assert len(replace(data.split, fold=NO_FOLD).train) == everyone
    for record in records:
        assert record.config.data.fold == NO_FOLD and record.config.epochs == then.best["epoch"]
        assert record.result.state == "finished" and record.result.best_epoch == len(record.reports) == record.config.epochs
        assert {report["score"] for report in record.reports} == {None}
        assert record.reports[-1]["distinct"] == everyone // 16 * 16, "an epoch is whole batches"
        assert read_predictions(record.folder).ids == ()
        assert (alone(record.config) / MODEL).read_bytes() == (record.folder / MODEL).read_bytes()
    assert "No validation split" in words and "no validation score" in words
    assert "python -m analysis.ensemble --top 2 --run faces --run all" in words


@pytest.mark.nightly
def test_each_seed_is_new_and_gives_another_model(on_all_data, searched, best):
    records = read_records(on_all_data[0])
    assert [record.config.seed for record in records] == [1000, 2000]
    assert len({(record.folder / MODEL).read_bytes() for record in records}) == 2
    assert [record.result.notes for record in records] == [
        (f"refit of faces/{best}: all but the hold-out, {record.config.epochs} epochs, seed {record.config.seed}",) for record in records
    ]


@pytest.mark.nightly
def test_models_of_all_data_take_the_place_of_the_searched_one_in_an_ensemble(on_all_data, searched, best):
    run, _ = on_all_data
    with pytest.raises(RunError, match=r"2 trials .*--run.*all/0, all/1"):
        load_runs([run])
    runs = load_runs([searched, run])
    assert [str(trial) for trial in runs.trials] == [f"faces/{1 - best}", "all/0", "all/1"]
    twin = next(trial for trial in load_runs([searched]).trials if trial.record.number == best)
    for trial in runs.trials[1:]:
        assert trial.score == twin.score and (trial.valid == twin.valid).all()
        assert trial.models == (trial_folder(run, trial.record.number) / MODEL,)
    assert str(runs.left_out[0]) == f"1 searched trials: their refits on all data take their place: faces/{best}"


# The last epochs


@pytest.fixture(scope="module")
def on_the_validation_images(home, searched, best, ray_cluster) -> Path:
    """The best trial goes on for two epochs on the images that validated it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        code, words = refitted(RefitOptions(run="faces", top=1, all_data=True, last_epochs=2), already(ray_cluster), name="last")
    assert code == 0, words
    assert "No validation split" in words and "python -m analysis.ensemble --top 1 --run faces --run last" in words
    return home / "runs" / "last"


def test_the_last_epochs_go_on_from_the_searched_weights_on_the_fold_that_validated(on_the_validation_images, searched, best, data):
    then, (record,) = read_record(trial_folder(searched, best)), read_records(on_the_validation_images)
    assert (record.folder / FIRST).read_bytes() == then.model.read_bytes() != record.model.read_bytes()
    config = record.config
    assert (config.data.fold, config.data.only, config.epochs, config.schedule.name) == (NO_FOLD, 0, 2, "cosine")
    assert record.result.state == "finished" and record.result.best_epoch == 2
    assert [report["score"] for report in record.reports] == [None, None]
    validated = data.split.valid
    assert {report["photos"] for report in record.reports} == {len(validated) // 16 * 16}
    lrs = [report["lr"] for report in record.reports]
    assert config.optimizer.lr > lrs[0] > lrs[1] > 0
    (words,) = record.result.notes
    assert words == f"refit of faces/{best}: its weights of epoch {then.best['epoch']}, then 2 epochs on fold 0 alone, seed 0"


def test_the_last_epochs_are_trained_again_bitwise_and_take_the_trial_s_place_in_a_vote(on_the_validation_images, searched, best):
    assert replay(str(on_the_validation_images), 0, epochs=None, folder=None, threads=None, console=Console(quiet=True)) == 0
    runs = load_runs([searched, on_the_validation_images])
    assert [str(trial) for trial in runs.trials] == [f"faces/{1 - best}", "last/0"]
    assert runs.trials[1].score == next(one.score for one in load_runs([searched]).trials if one.record.number == best)


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(file.read_bytes()[:99]), Path.unlink], ids=["cut", "gone"])
def test_weights_that_are_to_be_gone_on_from_are_verified_before_they_are(on_the_validation_images, tmp_path, damage):
    folder = shutil.copytree(on_the_validation_images / "trials" / "0", tmp_path / "0")
    edit(folder / "result.json", state="interrupted", best_epoch=0)
    for name in (MODEL, "reports.jsonl"):
        (folder / name).unlink()
    verify(read_record(folder))
    damage(folder / FIRST)
    with pytest.raises(DAMAGE):
        verify(read_record(folder))


def test_last_epochs_that_end_between_two_of_them_go_on_to_the_same_model(on_the_validation_images, data, tmp_path):
    record = read_record(on_the_validation_images / "trials" / "0")
    job = Job(tmp_path, replace(data, split=replace(data.split, fold=NO_FOLD)), "test", threads=1)
    folder = trial_folder(tmp_path, 0)
    folder.mkdir(parents=True)
    shutil.copy(record.folder / FIRST, folder)

    def end(values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(0, record.config, job, report=end)
    assert len(read_record(folder).reports) == 1
    train(0, record.config, job, report=lambda values: None)
    assert (folder / MODEL).read_bytes() == record.model.read_bytes()


@pytest.mark.nightly
def test_killed_last_epochs_resume_to_the_same_model(home, on_the_validation_images, best, ray_cluster):
    words = ("--run", "faces", "--trials", str(best), "--all-data", "--last-epochs", "2", "--name", "last-killed", "--no-dashboard")
    command = start(home, "tuner.refit", *words)
    run = home / "runs" / "last-killed"
    try:
        command.wait_for(lambda: list(run.glob("trials/*/reports.jsonl")))
    finally:
        command.kill()
    code, said = refitted(RefitOptions(), already(ray_cluster), resume="last-killed")
    assert code == 0, said
    assert (run / "trials" / "0" / MODEL).read_bytes() == (on_the_validation_images / "trials" / "0" / MODEL).read_bytes()


def test_the_learning_rate_goes_on_where_the_searched_trial_had_it_so_many_epochs_before_its_best(copied):
    edit(trial_folder(copied, 0) / "result.json", best_epoch=3)
    lrs = [report["lr"] for report in read_record(trial_folder(copied, 0)).reports]
    rates = [planned(copied, RefitOptions(trials=(0,), all_data=True, last_epochs=last))[0].config.optimizer.lr for last in (1, 2, 3)]
    assert rates == [lrs[1], lrs[0], 1e-2], "before its first epoch a trial has its highest"


@pytest.mark.parametrize("unfreeze, found", [(1, "none"), (2, "none"), (3, 1), (0, 0)])
def test_what_had_thawed_by_the_best_epoch_does_not_freeze_again(copied, unfreeze, found):
    values = read_record(trial_folder(copied, 0)).config.values()["model"]
    edit(trial_folder(copied, 0) / "config.json", model=values | {"freeze": "backbone", "unfreeze_epoch": unfreeze})
    edit(trial_folder(copied, 0) / "result.json", best_epoch=2)
    (refit,) = planned(copied, RefitOptions(trials=(0,), all_data=True, last_epochs=2))
    model = refit.config.model
    assert model.freeze == "none" if found == "none" else model.unfreeze_epoch == found


def test_a_plateau_may_go_on_with_its_last_epochs(copied):
    edit(trial_folder(copied, 1) / "config.json", schedule={"name": "plateau"})
    (refit,) = planned(copied, RefitOptions(trials=(1,), all_data=True, last_epochs=1))
    assert refit.config.schedule.name == "cosine"


def test_trials_that_cannot_go_on_are_all_named_with_what_they_lack(copied, searched):
    probe = {"backbone": "test_efficientnet", "weights": "none", "freeze": "backbone", "heads": "probe"}
    edit(trial_folder(copied, 0) / "config.json", model=probe)
    (trial_folder(copied, 1) / MODEL).unlink()
    said = refused(RefitOptions(run="copied", trials=(0, 1), all_data=True, last_epochs=2)).splitlines()
    assert not mistaken(said[:-1], [("trial 0 ", "probe"), ("trial 1 ", MODEL)])
    said = refused(RefitOptions(run="faces", trials=(0,), all_data=True, last_epochs=EPOCHS + 1))
    assert not missing(said, f"--last-epochs is {EPOCHS + 1}", "trial 0 ", f"at most {EPOCHS}")


# What to train


def planned(searched: Path, refit_options: RefitOptions):
    return plan_refits(choose(searched, read_run(searched), refit_options), refit_options, read_folds(searched))


def test_data_with_a_validation_part_of_its_own_has_no_other_folds(copied):
    table = copied / SPLIT
    table.write_text(table.read_text().replace(",fold 1,", ",train,"))
    with pytest.raises(RunError, match="--folds is 2, but .* give --all-data or --seeds"):
        planned(copied, RefitOptions(folds=2))
    assert planned(copied, RefitOptions(all_data=True, top=1))


def test_seeds_alone_train_on_the_search_s_own_fold(searched):
    refits = planned(searched, RefitOptions(trials=(1,), seeds=3))
    then = read_record(trial_folder(searched, 1)).config.values()
    assert [refit.config.values() for refit in refits] == [then | {"seed": seed} for seed in (1000, 2000, 3000)]


def test_folds_and_seeds_multiply(searched):
    refits = planned(searched, RefitOptions(trials=(1, 0), folds=2, seeds=2))
    found = [(refit.origin.trial, refit.config.seed, refit.config.data.fold) for refit in refits]
    assert found == [(trial, seed, fold) for trial in (1, 0) for seed in (1000, 2000) for fold in (0, 1)]


def test_all_data_takes_all_epochs_where_that_is_asked_for_and_no_patience(copied):
    edit(trial_folder(copied, 0) / "config.json", train={"patience": 1, "batch_size": 16})
    (refit,) = planned(copied, RefitOptions(trials=(0,), all_data=True, epochs_from="all"))
    assert (refit.config.epochs, refit.config.train.patience) == (EPOCHS, 0)


def test_top_takes_the_best_finished_trials_and_no_more_than_there_are(copied, best):
    assert [record.number for record in choose(copied, read_run(copied), RefitOptions())] == [best, 1 - best]
    edit(trial_folder(copied, best) / "result.json", state="stopped")
    assert [record.number for record in choose(copied, read_run(copied), RefitOptions(top=2))] == [1 - best]
    assert [record.number for record in choose(copied, read_run(copied), RefitOptions(trials=(best,)))] == [best], "named, it may be one"


def test_every_refit_has_its_place_in_the_space_of_what_differs(searched):
    configs = [refit.config for refit in planned(searched, RefitOptions(folds=2, seeds=2))]
    space = space_of(configs)
    assert {"loss/name", "seed", "data/fold"} <= {parameter.path for parameter in space.parameters}
    assert all(fits(space, config.values(), {}) for config in configs)
    assert not fits(space, configs[0].values() | {"epochs": EPOCHS + 1}, {})


# Bad input


@pytest.mark.parametrize(
    "refit_options, parts",
    [
        (RefitOptions(), ["--run", "--resume"]),
        (RefitOptions(run="faces"), ["--folds", "--all-data", "--seeds"]),
        (RefitOptions(run="faces", folds=2, all_data=True), ["--folds", "--all-data"]),
        (RefitOptions(run="faces", seeds=1, epochs_from="all"), ["--epochs-from", "--all-data"]),
        (RefitOptions(run="faces", seeds=1, last_epochs=2), ["--last-epochs", "--all-data"]),
        (RefitOptions(run="faces", all_data=True, last_epochs=0), ["--last-epochs is 0"]),
        (RefitOptions(run="faces", all_data=True, last_epochs=2, epochs_from="all"), ["--epochs-from", "--last-epochs"]),
        (RefitOptions(run="faces", seeds=1, top=0), ["--top is 0"]),
        (RefitOptions(run="faces", seeds=1, top=1, trials=(1,)), ["--top", "--trials"]),
        (RefitOptions(run="face", seeds=1), ["'face' in runs/"]),
        (RefitOptions(run="faces", trials=(1, 7), seeds=1), ["faces has no trial 7", "0, 1"]),
        (RefitOptions(run="faces", folds=5), ["--folds is 5", "split.csv", "--folds 2"]),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(refit_options, parts):
    assert not missing(refused(refit_options), *parts)


def test_all_options_that_do_not_go_together_are_named_at_once():
    said = refused(RefitOptions(run="faces", folds=2, all_data=True, top=1, trials=(1,)))
    assert len(said.splitlines()) == 2
    said = refused(RefitOptions(run="faces", seeds=3), resume="faces", name="other")
    assert said.endswith("; remove --run, --seeds, --name")


def test_a_name_that_is_taken_is_refused(searched):
    assert not missing(refused(RefitOptions(run="faces", seeds=1), name="faces"), "runs/faces ", "--name")


def test_a_run_without_a_finished_trial_is_refused_with_how_its_trials_ended(copied):
    edit(trial_folder(copied, 0) / "result.json", state="interrupted")
    (trial_folder(copied, 1) / "result.json").write_text("{")
    said = refused(RefitOptions(run="copied", seeds=1))
    assert not missing(said, "faces", "(1 interrupted, 1 damaged)", "python -m tuner.run --resume copied")


def test_named_trials_that_cannot_be_trained_again_are_all_named(copied):
    (trial_folder(copied, 0) / "config.json").write_text("{")
    edit(trial_folder(copied, 1) / "result.json", state="failed", reason="the loss is nan", best_epoch=0)
    said = refused(RefitOptions(run="copied", trials=(0, 1), seeds=1)).splitlines()
    expected = [("trial 0 of faces ", "(JSONDecodeError"), ("trial 1 of faces ", "(failed: the loss is nan)")]
    assert not mistaken(said, expected)


def test_a_schedule_that_asks_for_scores_cannot_be_trained_on_all_data(copied):
    edit(trial_folder(copied, 1) / "config.json", schedule={"name": "plateau"})
    said = refused(RefitOptions(run="copied", trials=(1,), all_data=True))
    assert said.startswith("schedule/name is plateau in trial 1: ")
    assert len(planned(copied, RefitOptions(trials=(1,), folds=2))) == 2


def test_images_that_changed_are_refused_with_what_differs(searched, demo, tmp_path):
    images = shutil.copytree(demo, tmp_path / "photos")
    one, other = sorted((images / "train" / "images").glob("*/mask1.jpg"))[3:5]
    shutil.copy(one, other)
    said = refused(RefitOptions(run="faces", folds=2), already(None), data=images)
    assert not missing(said, "faces", "content, 1: ")


def test_the_command_refuses_in_words_and_exits_with_2(searched):
    app = typer.Typer()
    app.command()(main)
    for words, message in (
        (["--run", "faces", "--folds", "2", "--all-data"], "--folds"),
        (["--run", "faces", "--top", "0", "--folds", "2"], "'--top'"),
        (["--run", "faces", "--trials", "4;7"], "4,7"),
    ):
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert result.exit_code == 2 and message in result.output


def test_configurations_that_chose_other_entries_have_their_places_in_one_space(make_config):
    configs = [make_config(loss={"name": "focal", "gamma": 1.0}), make_config(), make_config(loss={"name": "focal", "gamma": 3.0})]
    space = space_of(configs)
    assert all(fits(space, config.values(), {}) for config in configs)
    assert [space.drawn(config.values()).get("loss/gamma") for config in configs] == [1.0, None, 3.0]
    assert not fits(space, make_config(loss={"name": "bce"}).values(), {})

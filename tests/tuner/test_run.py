import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from search_spaces.schema import SpaceError
from tests.conftest import already, never
from tests.messages import missing
from trainables.data.images import DataError
from trainables.metrics import METRICS
from trainables.record import RunError, read_records, read_run
from trainables.registry import ConfigError
from trainables.storage import StorageError
from tuner.cli import Options, TrialCount, seconds, trial_count
from tuner.cluster import ClusterError
from tuner.demo.writing import write_people
from tuner.run import run
from tuner.searching import search

app = typer.Typer()
app.command()(run)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """People without quirks, to spoil copies of."""
    return write_people(tmp_path_factory.mktemp("plain") / "people", people=60, seed=1, size=(36, 48), quirks=False)


@pytest.fixture
def spoiled(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "spoiled")


def searched(start=never, **options) -> tuple[int, str]:
    """Exit code and words of a search in this process."""
    said = StringIO()
    return search(Options(**options), Console(file=said, width=200), start), said.getvalue()


def refused(start=never, **options) -> str:
    """The one message of a search that the user has to fix; no run may be there, nor Ray be started."""
    with pytest.raises((SpaceError, ConfigError, DataError, RunError, StorageError, ClusterError)) as caught:
        searched(start, **options)
    assert not list(Path().glob("runs/*"))
    return str(caught.value)


# Bad input


def test_a_data_folder_that_is_not_there_is_refused(here, tiny_space):
    assert refused(space=str(tiny_space), data=Path("nowhere")).startswith("nowhere: ")


def test_a_data_folder_without_its_table_is_refused(here, tiny_space, spoiled):
    (spoiled / "train" / "train.csv").unlink()
    assert str(spoiled) in refused(space=str(tiny_space), data=spoiled)


@pytest.mark.parametrize(
    "old, new, parts",
    [
        ("gender,race,age", "gender,race,years", ["column age", "id, gender, age, path", "id, gender, race, years"]),
        (",male,", ",man,", ["gender is 'man'", "male, female"]),
        (",Asian,", ",Asian,about ", ["age is 'about ", "between 0 and 120"]),
        ("_Asian_", "_Elvish_", ["_Elvish_", "is not in"]),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused_with_what_is_wrong(here, tiny_space, spoiled, old, new, parts):
    table = spoiled / "train" / "train.csv"
    table.write_text(table.read_text().replace(old, new))
    said = refused(space=str(tiny_space), data=spoiled)
    assert not missing(said, "train.csv", *parts)
    assert len(said.splitlines()) <= 21, "a long list is cut"


def test_two_images_are_too_few(here, tiny_space, tmp_path):
    data = write_people(tmp_path / "one", people=1, seed=0, size=(36, 48))
    for image in list((data / "train" / "images").rglob("*.jpg"))[2:]:
        image.unlink()
    assert not missing(refused(space=str(tiny_space), data=data), "1 groups", "2 folds and a hold-out")


def test_a_class_in_fewer_groups_than_parts_refuses_no_data_and_is_named(here, tiny_space, plain):
    code, said = searched(space=str(tiny_space), data=plain, changes=("data/folds=9",), dry_run=True)
    assert code == 0
    assert re.search(r"female, >=60 \(\d\)", said)


@pytest.mark.nightly
def test_a_dry_run_says_what_a_start_entry_loses(here, tiny_space, plain):
    code, said = searched(space=str(tiny_space), data=plain, changes=("loss/name=focal",), dry_run=True)
    lost = [line for line in said.splitlines() if "start entry" in line]
    assert code == 0 and len(lost) == 2
    assert all("loss/name cross_entropy" in line for line in lost)
    assert lost[0].startswith("tiny.yaml:12: start entry 1 ") and lost[1].startswith("tiny.yaml:14: start entry 3 ")


@pytest.mark.parametrize(
    "change, parts",
    [
        ("loss/gama=2", ["cross_entropy or focal", "did you mean loss/gamma (of focal)?"]),
        ("model/backbone=resnet1888", ["'resnet1888'"]),
        ("task={choice: [joint, eyes]}", ["eyes"]),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_before_anything_is_trained(here, tiny_space, plain, change, parts):
    assert not missing(refused(space=str(tiny_space), data=plain, changes=(change,)), f"--set: {change.split('=')[0]}: ", *parts)


def test_a_name_that_is_taken_or_no_plain_name_is_refused(here, tiny_space, plain):
    for name in ("../elsewhere", "a/b", ".hidden", "", "-first", "x" * 256):
        assert "plain folder name" in refused(space=str(tiny_space), data=plain, name=name)
    Path("runs/mine").mkdir(parents=True)
    with pytest.raises(RunError, match="runs/mine .*--name"):
        searched(space=str(tiny_space), data=plain, name="mine")
    assert list(Path("runs/mine").iterdir()) == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"space": None}, "give --space"),
        ({"trials": TrialCount(3, more=True)}, "--trials +3"),
        ({"space": None, "resume": "faces"}, "no run 'faces' in runs/"),
        ({"storage": "ftp://host/runs"}, "ftp://"),
        ({"storage": "s3:///runs"}, "s3://bucket/folder"),
        ({"storage": "/proc/runs"}, "/proc/runs: No such file or directory"),
    ],
)
def test_options_that_do_not_go_together_or_lead_nowhere_are_refused(here, tiny_space, plain, options, message):
    assert message in refused(**{"space": str(tiny_space), "data": plain, **options})


def test_a_storage_that_is_a_file_is_refused(here, tiny_space, plain):
    Path("file").write_text("")
    assert refused(space=str(tiny_space), data=plain, storage="file").startswith("file: File exists")


def test_images_that_cannot_be_decoded_are_named_and_counted_and_stop_the_search_where_they_are_many(here, tiny_space, spoiled):
    images = sorted((spoiled / "train" / "images").rglob("mask1.jpg"))
    for image in images[:2]:
        image.write_bytes(b"no image")
    code, said = searched(space=str(tiny_space), data=spoiled, dry_run=True)
    assert code == 0
    assert not missing(said, "2 images", f": {images[0].parent.name}/mask1.jpg")
    for image in images[:30]:
        image.write_bytes(b"no image")
    message = refused(already(None), space=str(tiny_space), data=spoiled)
    assert message.startswith("30 images ") and not missing(message, "more than 5%", "--allow-bad-images")
    code, said = searched(space=str(tiny_space), data=spoiled, dry_run=True, allow_bad_images=True)
    assert code == 0 and not missing(said, "30 images", "390 images of 60 groups")


# The command line


def test_the_command_reports_a_mistake_once_and_ends_with_code_2(here, tiny_space):
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--data", "nowhere", "--dry-run"])
    assert result.exit_code == 2
    assert result.stderr.startswith("nowhere: ") and len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output
    assert not list(here.glob("runs/*"))


def test_the_command_reports_all_mistakes_of_a_space_one_a_line(here, tiny_space):
    changes = ("--set", "loss/gama=2", "--set", "run/trails=3", "--set", "optimizer/lr=1e-5")
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--dry-run", *changes])
    assert result.exit_code == 2
    assert sorted(line.split(": ")[1] for line in result.stderr.splitlines()) == ["loss/gama", "optimizer/lr", "run/trails"]


@pytest.mark.parametrize("text, expected", [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), (" 2d ", 172800)])
def test_a_time_budget_is_a_number_and_a_unit(text, expected):
    assert seconds(text) == expected


def refused_words(*options: str) -> str:
    """What the command says of options that cannot be read, without the frame around it."""
    result = CliRunner().invoke(app, [*options, "--dry-run"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert list(Path().iterdir()) == []
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("text", ["soon", "-5m", "0", "1w", "5 minutes", "1e3", ""])
def test_a_time_budget_that_is_no_length_of_time_is_refused(here, tiny_space, text):
    assert "90s, 20m or 1.5h" in refused_words("--space", str(tiny_space), "--time-budget", text)


@pytest.mark.parametrize("text, expected", [("40", TrialCount(40)), ("+20", TrialCount(20, more=True)), (" +1 ", TrialCount(1, more=True))])
def test_a_number_of_trials_is_all_of_them_or_how_many_more(text, expected):
    assert trial_count(text) == expected


@pytest.mark.parametrize("text", ["many", "-4", "0", "+0", "++2", "2.5", ""])
def test_a_number_of_trials_that_is_none_is_refused(here, tiny_space, text):
    said = refused_words("--space", str(tiny_space), f"--trials={text}")
    assert not missing(said, "'--trials'", "40", "--resume +20")


@pytest.mark.parametrize(
    "option", ["--seed=-1", "--keep=0", "--keep-running=1.5", "--retries=-1", "--gpus-per-trial=-1", "--cpus-per-trial=0"]
)
def test_a_number_outside_its_range_is_refused_by_the_name_of_its_option(here, tiny_space, option):
    said = refused_words("--space", str(tiny_space), option)
    assert f"'{option.partition('=')[0]}': " in said


def test_a_dry_run_trains_a_step_of_each_kind_and_writes_nothing(here, tiny_space, plain):
    result = CliRunner().invoke(app, ["--space", str(tiny_space), "--data", str(plain), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "Nothing was written." in result.stdout
    assert not list(here.glob("runs/*"))


# Searches


@pytest.mark.nightly
def test_a_trial_that_diverges_is_a_failed_one_and_the_search_resumes(here, tiny_space, plain, ray_cluster):
    changes = ("run/epochs=1", "run/grace=1", "optimizer/name=sgd", "optimizer/lr=1.0e+30")
    code, said = searched(already(ray_cluster), space=str(tiny_space), data=plain, trials=TrialCount(2), name="diverged", changes=changes)
    states = [record.result for record in read_records(Path("runs/diverged"))]
    assert code == 0
    assert [result.state for result in states] == ["failed", "failed"]
    assert all(", at learning rate " in result.reason and result.cause == "diverged" for result in states)
    assert f"trial 0 failed: {states[0].reason}" in said and "2 trials: 2 failed" in said
    assert f"The baseline, trial 0 (the first start entry), has no score: {states[0].reason}" in said


@pytest.mark.nightly
def test_a_search_keeps_to_the_metric_searcher_and_pruner_that_it_is_given(here, tiny_space, plain, ray_cluster):
    chosen = ("run/metric=neg_log_loss", "run/searcher=gp", "run/pruner=median", "run/startup=1")
    changes = (*chosen, "run/epochs=3", "run/grace=1", "run/keep=1")
    options = {"space": str(tiny_space), "data": plain, "trials": TrialCount(4), "name": "surprised", "changes": changes}
    code, said = searched(already(ray_cluster), **options)
    assert code == 0, said
    run = Path("runs/surprised")
    records = read_records(run)
    assert read_run(run).metric == "neg_log_loss" and {record.config.metric for record in records} == {"neg_log_loss"}
    for record in records:
        scores = [report["score"] for report in record.reports]
        assert max(scores) < 0 and record.result.best_epoch == 1 + scores.index(max(scores))
    assert {decision.pruner for record in records for decision in record.decisions} == {"median"}
    best = max(records, key=lambda record: record.best["score"])
    assert [record.number for record in records if record.has_model] == [best.number]
    assert METRICS["neg_log_loss"].title in said.partition("Best trials of surprised")[2]


def test_a_budget_too_small_for_one_epoch_says_what_it_would_take(here, tiny_space, plain, ray_cluster):
    options = {"space": str(tiny_space), "data": plain, "time_budget": 0.5, "finalists": 2, "answer": True}
    code, said = searched(already(ray_cluster), **options)
    assert code == 0 and not missing(said, "too small for one epoch", "--time-budget", "--resume") and "Answer" not in said

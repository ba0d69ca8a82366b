import pytest

from search_spaces.read import read_space
from search_spaces.schema import SpaceError
from tests.messages import mistaken
from trainables.metrics import METRICS, Metric
from tuner.settings import RunSettings, run_mistakes
from tuner.stoppers import STOPPERS


def mistakes_in(tmp_path, *lines):
    file = tmp_path / "my.yaml"
    file.write_text("\n".join(["run:", *(f"  {line}" for line in lines)]))
    with pytest.raises(SpaceError) as caught:
        read_space(file, check=run_mistakes)
    return caught.value.mistakes


def test_a_run_without_settings_has_defaults_that_fit_together(tmp_path):
    (tmp_path / "my.yaml").write_text("task: joint")
    space = read_space(tmp_path / "my.yaml", check=run_mistakes)
    settings = RunSettings.model_validate(space.run)
    assert settings == RunSettings()
    assert settings.grace <= settings.epochs


def test_settings_are_taken_as_written_and_an_integer_reduction_is_a_number_too():
    settings = RunSettings.model_validate({"trials": 40, "epochs": 9, "grace": 3, "reduction": 3, "keep": 5})
    assert (settings.trials, settings.epochs, settings.grace, settings.reduction, settings.keep) == (40, 9, 3, 3.0, 5)


def test_all_mistakes_are_reported_at_once_with_line_and_fix(tmp_path):
    found = mistakes_in(tmp_path, "trails: 4", "epochs: 0", "reduction: 1", "keep: many", "zzz: 3")
    wrong = {"run/trails": "run/trials", "run/epochs": "0", "run/reduction": "1", "run/keep": "'many'", "run/zzz": "run/metric"}
    assert not mistaken(found, [(f"my.yaml:{line}: {path}: ", named) for line, (path, named) in enumerate(wrong.items(), start=2)])


@pytest.mark.parametrize("value", ["1.5", "true", "'4'"])
def test_a_number_of_trials_is_an_integer(tmp_path, value):
    (found,) = mistakes_in(tmp_path, f"trials: {value}")
    assert found.startswith("my.yaml:2: run/trials: ") and "integer" in found


@pytest.mark.parametrize(
    "line, bound",
    [
        ("keep_running: 1.5", "less than or equal to 1"),
        ("keep_running: -0.1", "greater than or equal to 0"),
        ("early_stopping: 1", "boolean"),
        ("retries: -1", "greater than or equal to 0"),
        ("retries: 1.5", "integer"),
    ],
)
def test_who_is_spared_and_how_often_is_tried_again_have_bounds(tmp_path, line, bound):
    (found,) = mistakes_in(tmp_path, line)
    field, value = line.split(": ")
    assert not mistaken([found], [(f"my.yaml:2: run/{field}: ", bound, value)])


def test_none_and_all_may_be_spared_and_no_crash_need_be_forgiven():
    settings = RunSettings.model_validate({"keep_running": 0, "retries": 0, "early_stopping": False})
    assert (settings.keep_running, settings.retries, settings.early_stopping) == (0.0, 0, False)
    assert RunSettings.model_validate({"keep_running": 1}).keep_running == 1.0


def test_grace_beyond_the_last_epoch_is_refused(tmp_path):
    (found,) = mistakes_in(tmp_path, "epochs: 3", "grace: 4")
    assert not mistaken([found], [("my.yaml:2: run: ", "run/grace is 4", "run/epochs (3)")])


@pytest.mark.parametrize("line, near", [("metric: f1_makro", "f1_macro"), ("searcher: tep", "tpe"), ("pruner: medain", "median")])
def test_a_name_that_does_not_exist_is_refused_with_its_line_and_the_nearest_ones(tmp_path, line, near):
    (found,) = mistakes_in(tmp_path, "trials: 3", line)
    path, _, name = line.partition(": ")
    assert found.startswith(f"my.yaml:3: run/{path}: {name!r}") and f"did you mean {near}" in found


def test_a_metric_that_is_added_later_is_known(monkeypatch):
    monkeypatch.setitem(METRICS, "error", Metric("error", "error rate", direction="minimize"))
    assert RunSettings(metric="error").score().sign == -1


def test_no_early_stopping_is_short_for_no_pruner(tmp_path):
    assert RunSettings(early_stopping=False).pruner == "none"
    assert RunSettings(early_stopping=False, pruner="none").stopper().name == "none"
    (found,) = mistakes_in(tmp_path, "early_stopping: false", "pruner: median")
    assert "run/early_stopping" in found and "run/pruner is median" in found


@pytest.mark.parametrize("pruner", STOPPERS)
def test_every_pruner_is_made_of_the_settings_that_it_reads(pruner):
    settings = RunSettings(pruner=pruner, epochs=20, grace=2)
    assert STOPPERS[pruner].settings.model_fields.keys() <= RunSettings.model_fields.keys()
    assert settings.stopper().name == pruner

import pytest

from search_spaces.read import read_space
from search_spaces.schema import SpaceError
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
    wanted = [("2", "run/trails", "run/trials"), ("3", "run/epochs", "0"), ("4", "run/reduction", "1"), ("5", "run/keep", "'many'")]
    wanted.append(("6", "run/zzz", "run/metric"))
    for line, (number, path, told) in zip(found, wanted, strict=True):
        assert line.startswith(f"my.yaml:{number}: {path}: ") and told in line


@pytest.mark.parametrize("value", ["1.5", "true", "'4'"])
def test_a_number_of_trials_is_an_integer(tmp_path, value):
    (found,) = mistakes_in(tmp_path, f"trials: {value}")
    assert found.startswith("my.yaml:2: run/trials: input should be a valid integer")


@pytest.mark.parametrize(
    "line, message",
    [
        ("keep_running: 1.5", "input should be less than or equal to 1, got 1.5"),
        ("keep_running: -0.1", "input should be greater than or equal to 0, got -0.1"),
        ("early_stopping: 1", "input should be a valid boolean, got 1"),
        ("retries: -1", "input should be greater than or equal to 0, got -1"),
        ("retries: 1.5", "input should be a valid integer"),
    ],
)
def test_who_is_spared_and_how_often_is_tried_again_have_bounds(tmp_path, line, message):
    (found,) = mistakes_in(tmp_path, line)
    assert found.startswith(f"my.yaml:2: run/{line.split(':')[0]}: {message}")


def test_none_and_all_may_be_spared_and_no_crash_need_be_forgiven():
    settings = RunSettings.model_validate({"keep_running": 0, "retries": 0, "early_stopping": False})
    assert (settings.keep_running, settings.retries, settings.early_stopping) == (0.0, 0, False)
    assert RunSettings.model_validate({"keep_running": 1}).keep_running == 1.0


def test_grace_beyond_the_last_epoch_is_refused(tmp_path):
    (found,) = mistakes_in(tmp_path, "epochs: 3", "grace: 4")
    assert found == "my.yaml:2: run: run/grace is 4, more than run/epochs (3); lower run/grace"


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

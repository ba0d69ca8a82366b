import pytest
import torch

from analysis.figures.price import Priced, pareto_front, price_figure
from analysis.members.predictions import TrialModels
from analysis.members.price import Limit, Price, measure, price_of
from analysis.members.trials import load_runs
from trainables.metrics import METRICS

PRICES = {"small": Price(1.0, 0.5, 2.0, 0.1), "large": Price(10.0, 4.0, 40.0, 3.0)}


def test_the_price_of_a_trial_is_that_of_its_files_and_passes_and_the_same_operations_each_time(faces):
    trial = TrialModels.of(load_runs([faces.folder]).trials[0])
    first, again = (measure(trial, torch.device("cpu")) for _ in range(2))
    assert first.megabytes == sum(file.stat().st_size for file in trial.models) / 1e6
    assert first.gflops == again.gflops > 0
    assert first.ms > first.ms_in_batch > 0


def test_models_of_every_fold_cost_as_much_as_there_are(faces):
    trial = TrialModels.of(load_runs([faces.folder]).trials[0])
    twice = TrialModels(trial.name, trial.task, trial.view, trial.models * 2)
    one, two = (measure(trials, torch.device("cpu")) for trials in (trial, twice))
    assert (two.megabytes, two.gflops) == pytest.approx((2 * one.megabytes, 2 * one.gflops))


def test_an_answer_costs_what_its_trials_cost_once_and_transforms_cost_time_but_no_memory():
    assert price_of(PRICES, ["small", "large", "small"]) == Price(11.0, 4.5, 42.0, 3.1)
    assert price_of(PRICES, ["small"], looks=4) == Price(4.0, 2.0, 2.0, 0.4)


@pytest.mark.parametrize(
    "limit, trials, looks, within",
    [
        ({"ms": 10}, ["large"], 1, True),
        ({"ms": 10}, ["large", "small"], 1, False),
        ({"ms": 3}, ["small"], 3, True),
        ({"ms": 3}, ["small"], 4, False),
        ({"megabytes": 40}, ["large"], 4, True),
        ({"megabytes": 39}, ["large"], 1, False),
        ({"ms": 1, "megabytes": 1}, ["without weights"], 1, True),
    ],
)
def test_a_limit_allows_what_costs_as_much_or_less(limit, trials, looks, within):
    assert Limit(PRICES, **limit).allows(trials, looks) is within


def test_nothing_on_the_front_is_equalled_by_what_is_cheaper_and_everything_else_is():
    found = [
        Priced(str(number), "single model", ms, score, None) for number, (ms, score) in enumerate([(1, 5), (2, 4), (2, 7), (3, 7), (9, 8)])
    ]
    assert [one.name for one in pareto_front(found, 1)] == ["0", "2", "4"]
    assert [one.name for one in pareto_front(found, -1)] == ["0", "1"]
    figure = price_figure(found, METRICS["f1_macro"])
    (named,) = (text.get_text() for text in figure.texts)
    assert named.split() == ["1", "0", "2", "2", "3", "4"]

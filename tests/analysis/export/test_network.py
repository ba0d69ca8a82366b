from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from analysis.evaluation.calibration import Calibration
from analysis.evaluation.steps import Offsets, Rule, Shares, Step, TopTwo
from analysis.export.network import STEPS, VOTES, answer, calibrate, member_answer
from analysis.export.network import advised as advised_in_torch
from analysis.members.compose import advised
from analysis.votes import ENSEMBLES, Ensemble
from analysis.votes.voting import Mean
from tests.analysis.evaluation.test_fitted_ensemble import EVERYTHING, drawn
from trainables.data.labels import Attribute, Scheme
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
SCHEME = Scheme((Attribute("side", ("left", "right")), Attribute("size", ("small", "middle", "large"), (10, 20))))
KINDS = {
    Offsets: Offsets((0.5, 0, -1, 0.2, 0, 0)),
    TopTwo: TopTwo(SCHEME, (Rule("size", 2, 1, 0.8), Rule("side", 0, 1, 1.5), Rule("size", 0, 1, 0.0))),
    Shares: Shares(SCHEME, {"size": (0.2, 1.0, 3.0), "side": (0.0, 1.0)}),
}


def probabilities(seed, members=3, photos=40):
    """Some sure, some unsure, some level, some with classes that are impossible."""
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.full(6, 0.3), (members, photos))
    found[:, :5] = 1 / 6
    found[:, 5:10] = np.eye(6)[rng.integers(6, size=(members, 5))]
    found[0, 10:15, :3] = 0
    return found / found.sum(axis=2, keepdims=True)


def assert_close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_every_kind_of_vote_and_step_is_said_in_torch():
    assert set(VOTES) == set(get_args(get_args(Ensemble)[0]))
    assert set(STEPS) == set(get_args(get_args(Step)[0])) == set(KINDS)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_fitted_vote_answers_in_torch_as_in_numpy(name):
    rng = np.random.default_rng(0)
    target = rng.integers(5, size=120)
    shown = rng.dirichlet(np.full(6, 0.5), (3, 120)) + 0.5 * np.eye(6)[target]
    vote = ENSEMBLES[name](shown / shown.sum(axis=2, keepdims=True), target, np.arange(120) // 4, METRIC)
    for seed in range(10):
        found = VOTES[type(vote)](vote, torch.from_numpy(probabilities(seed)))
        assert_close(found, vote(probabilities(seed)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_every_step_answers_in_torch_as_in_numpy(kind, seed):
    scores = probabilities(seed)[0]
    assert_close(STEPS[kind](KINDS[kind], torch.from_numpy(scores)), KINDS[kind](scores))


def test_a_step_without_factors_or_rules_changes_nothing():
    scores = torch.from_numpy(probabilities(0)[0])
    assert STEPS[Shares](Shares(SCHEME), scores) is scores
    assert torch.equal(STEPS[TopTwo](TopTwo(SCHEME, ()), scores), scores)


@pytest.mark.parametrize("seed", range(10))
def test_calibration_and_advice_are_in_torch_as_in_numpy(seed):
    joint, other = probabilities(seed)[:2]
    calibration = Calibration(SCHEME, (("size",), ("side",)), (0.5, 3.0))
    assert_close(calibrate(calibration, torch.from_numpy(joint)), calibration(joint))
    advice = SCHEME.marginal(("size",), other)
    assert_close(
        advised_in_torch(SCHEME, torch.from_numpy(joint), ("size",), torch.from_numpy(advice)), advised(SCHEME, joint, ("size",), advice)
    )


@pytest.mark.parametrize("seed", range(10))
def test_members_of_parts_and_advisors_and_whole_pipelines_answer_in_torch_as_in_numpy(seed):
    predicted = drawn(seed)
    tensors = {name: torch.from_numpy(joint) for name, joint in predicted.items()}
    for member in EVERYTHING.members:
        assert_close(member_answer(member, tensors), member.answer(predicted))
    assert_close(answer(EVERYTHING, tensors), EVERYTHING(predicted))
    only = replace(EVERYTHING, members=EVERYTHING.members[:1], ensemble=Mean((1.0,)), calibrations={}, steps=())
    assert_close(answer(only, tensors), predicted["a/0"])

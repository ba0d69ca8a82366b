from typing import get_args

import numpy as np
import pytest
import torch

from analysis.evaluation.calibration import Calibration
from analysis.evaluation.steps import Offsets, Rule, Shares, Step, Thresholds, TopTwo
from analysis.members.compose import advised
from analysis.votes import ENSEMBLES
from tests.analysis.evaluation.test_fitted_ensemble import EVERYTHING, drawn
from tests.conftest import nightly_after
from trainables.data.targets import Classes, Scheme
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
SCHEME = Scheme((Classes("side", ("left", "right")), Classes("size", ("small", "middle", "large"), (10, 20))))
KINDS = {
    Offsets: Offsets((0.5, 0, -1, 0.2, 0, 0)),
    TopTwo: TopTwo(SCHEME, (Rule("size", 2, 1, 0.8), Rule("side", 0, 1, 1.5), Rule("size", 0, 1, 0.0))),
    Thresholds: Thresholds((0.5, 0, -1, 0.2, 0, 0)),
    Shares: Shares(SCHEME, {"size": (0.2, 1.0, 3.0), "side": (0.0, 1.0)}),
}


def probabilities(seed, members=3, images=40):
    """Some sure, some unsure, some level, some with classes that are impossible."""
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.full(6, 0.3), (members, images))
    found[:, :5] = 1 / 6
    found[:, 5:10] = np.eye(6)[rng.integers(6, size=(members, 5))]
    found[0, 10:15, :3] = 0
    return found / found.sum(axis=2, keepdims=True)


def in_torch(answering, *arrays):
    """What is answered to tensors, which must be what is answered to arrays."""
    found = answering(*map(torch.from_numpy, arrays))
    np.testing.assert_allclose(found.numpy(), answering(*arrays), rtol=1e-9, atol=1e-12)
    assert found.dtype == torch.float64
    return found


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_fitted_vote_answers_to_tensors_as_to_arrays(name):
    rng = np.random.default_rng(0)
    target = rng.integers(5, size=120)
    shown = rng.dirichlet(np.full(6, 0.5), (3, 120)) + 0.5 * np.eye(6)[target]
    vote = ENSEMBLES[name](shown / shown.sum(axis=2, keepdims=True), target, np.arange(120) // 4, METRIC)
    for seed in range(10):
        in_torch(vote, probabilities(seed))


def test_every_kind_of_step_is_among_those_that_are_tested():
    assert set(get_args(get_args(Step)[0])) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_every_step_answers_to_tensors_as_to_arrays(kind, seed):
    in_torch(KINDS[kind], probabilities(seed)[0])


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_calibration_and_advice_answer_to_tensors_as_to_arrays(seed):
    joint, other = probabilities(seed)[:2]
    in_torch(Calibration(SCHEME, (("size",), ("side",)), (0.5, 3.0)), joint)
    in_torch(lambda answer, advice: advised(SCHEME, answer, ("size",), advice), joint, SCHEME.marginal(("size",), other))


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_members_of_parts_and_advisors_and_whole_pipelines_answer_to_tensors_as_to_arrays(seed):
    predicted = drawn(seed)
    for answering in (EVERYTHING, *(member.answer for member in EVERYTHING.members)):
        in_torch(lambda *joints, answering=answering: answering(dict(zip(predicted, joints, strict=True))), *predicted.values())

"""The top-2 margin rule with a gap that is given: alone, in a pipeline, and in what validation says of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.evaluation.decide import Options, decide
from analysis.evaluation.fitted_ensemble import Pipeline, read_ensemble
from analysis.evaluation.margin import Margin
from analysis.evaluation.nested import Known, MemberOptions, line_up
from analysis.members.compose import Member, Part
from analysis.votes.voting import Mean, Votes
from tests.analysis.evaluation.test_decide import SCHEME as TWO
from tests.analysis.evaluation.test_decide import make_known, never
from tests.analysis.evaluation.test_fitted_ensemble import written
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data.targets import Classes, Scheme
from trainables.metrics import METRICS
from trainables.record import RunError
from trainables.registry import ConfigError

SCHEME = Scheme((Classes("mask", ("worn", "absent")), Classes.banded("age", (30, 60))))
IMAGES = (90, 100, 20, 60, 80, 10)
OLD = Margin(0.3, SCHEME, IMAGES, (("age", ">=60"),))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def by_hand(margin, answer, answers):
    """The label that the rule gives one image, from the logarithms of its probabilities (classes,)."""
    second, top = np.argsort(answer)[-2:]
    labels = np.array([one.argmax() for one in answers])
    wanted = not margin.values or (top % 3 == 2 and second == top - 1)
    apart = not margin.disagree or labels[0] != labels[1]
    return second if answer[top] - answer[second] <= margin.gap and IMAGES[second] > IMAGES[top] and wanted and apart else top


@pytest.mark.parametrize("values", [(), (("age", ">=60"),)])
@pytest.mark.parametrize("disagree", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_the_rule_is_that_of_the_reference_task(values, disagree, each):
    margin = Margin(0.3, SCHEME, IMAGES, values, each, disagree)
    logits = np.random.default_rng(0).normal(0, 0.4, size=(3, 400, 6))
    answers = list(softmax(logits))
    if each:
        for answer, own in zip(margin.before(answers), logits, strict=True):
            expected = [by_hand(margin, own[row], logits[:, row]) for row in range(400)]
            assert answer.argmax(axis=1).tolist() == expected
        assert margin.after(answers[0], answers) is answers[0]
    else:
        assert margin.before(answers) is answers
        found = margin.after(answers[2], answers)
        expected = [by_hand(margin, logits[2, row], logits[:, row]) for row in range(400)]
        assert found.argmax(axis=1).tolist() == expected
        assert (found.argmax(axis=1) != answers[2].argmax(axis=1)).any()
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(answers[2], axis=1))


def pipeline_of(margin, vote=None):
    members = tuple(Member(SCHEME, (Part(f"a/{number}", SCHEME, SCHEME.names),)) for number in range(3))
    return Pipeline(SCHEME, members, vote or Mean((0.5, 0.3, 0.2)), margin=margin)


def predicted(seed):
    logits = np.random.default_rng(seed).normal(0, 0.4, size=(3, 40, 6))
    return {f"a/{number}": one for number, one in enumerate(softmax(logits))}


@pytest.mark.parametrize("margin", [replace(OLD, each=each, disagree=disagree) for each in (True, False) for disagree in (True, False)])
@pytest.mark.parametrize("vote", [Mean((1.0, 0.0, 0.0)), Votes()])
def test_a_pipeline_with_the_rule_answers_alike_after_it_was_a_file_and_to_tensors(tmp_path, margin, vote):
    pipeline, known = pipeline_of(margin, vote), predicted(0)
    again = read_ensemble(written(tmp_path / "a" / "ensemble", pipeline)).pipeline
    assert again == pipeline
    np.testing.assert_array_equal(again(known), pipeline(known))
    answers = list(known.values())
    np.testing.assert_array_equal(pipeline(known), margin.after(vote(np.stack(margin.before(answers))), answers))
    in_torch = pipeline({name: torch.from_numpy(one) for name, one in known.items()})
    np.testing.assert_allclose(in_torch.numpy(), pipeline(known), rtol=1e-9)


def test_a_rule_for_other_classes_than_the_pipelines_is_refused(tmp_path):
    with pytest.raises(RunError, match="5 classes"):
        read_ensemble(written(tmp_path / "a" / "ensemble", pipeline_of(replace(OLD, images=IMAGES[:5]))))


def asked(margin, vote="best", top=2):
    return Options(MemberOptions(top=top), vote=vote, steps=(), margin=margin)


EVERY = Margin(3.0, TWO, (50, 40, 30, 20, 10, 5))


@pytest.mark.parametrize("each, disagree", nightly_after(1, [(True, True), (False, True), (True, False), (False, False)]))
def test_what_the_rule_is_worth_is_the_gain_over_the_same_vote_without_it_and_it_answers(each, disagree):
    margin = replace(EVERY, each=each, disagree=disagree)
    candidates, known = make_known(0, [0.9, 0.5])
    plain, found = (decide(options, candidates, known, never) for options in (asked(None, "soft"), asked(margin, "soft")))
    (step,) = found.steps
    assert (step.name, step.asked, step.used, found.final) == ("margin", True, True, "soft with steps")
    assert found.pipelines["soft"] == plain.pipelines["soft"] and found.choice == plain.choice
    assert found.pipelines[found.final].margin == margin
    # Nothing is fitted, and the members are the same whichever groups choose them.
    np.testing.assert_array_equal(found.nested, found.pipelines[found.final](known.predicted))
    score = METRICS["f1_macro"].score(known.truth(TWO), found.nested)
    assert step.evaluated.score == pytest.approx(score)
    assert step.evaluated.gain.gain == pytest.approx(score - plain.choice.evaluated["soft"].score)


def test_with_the_vote_best_the_best_model_answers_and_the_second_only_says_where_they_disagree():
    candidates, known = make_known(0, [0.9, 0.5])
    margin = replace(EVERY, disagree=True)
    found = decide(asked(margin), candidates, known, never)
    first, second = (member.answer(known.predicted) for member in found.pipelines[found.final].members)
    changed = found.nested.argmax(axis=1) != first.argmax(axis=1)
    assert changed.any() and (first.argmax(axis=1) != second.argmax(axis=1))[changed].all()


def test_a_vote_that_is_fitted_is_fitted_on_what_its_members_answer_with_the_rule():
    candidates, known = make_known(0, [0.7, 0.65, 0.6])
    options = MemberOptions(top=3, margin=replace(EVERY, each=True))
    lineup, plain = line_up(options, candidates, known), line_up(replace(options, margin=None), candidates, known)
    np.testing.assert_array_equal(lineup.answers, np.stack(options.margin.before(list(plain.answers))))
    assert lineup.fit("weighted").ensemble.weights != plain.fit("weighted").ensemble.weights


@pytest.mark.parametrize("options", [asked(replace(EVERY, disagree=True), "auto"), asked(replace(EVERY, disagree=True), "greedy_all")])
def test_two_members_that_may_disagree_have_to_be_there(options):
    candidates, known = make_known(0, [0.7, 0.65])
    with pytest.raises(ConfigError, match="--margin-disagree"):
        decide(options, candidates, known, never)


def test_a_metric_of_probabilities_has_no_use_for_the_rule():
    candidates, known = make_known(0, [0.7, 0.65])
    known = Known(METRICS["neg_log_loss"], known.scheme, known.labels, known.groups, known.predicted)
    with pytest.raises(ConfigError) as refusal:
        decide(asked(EVERY, "soft"), candidates, known, never)
    assert not missing(str(refusal.value), "--margin", "neg_log_loss")

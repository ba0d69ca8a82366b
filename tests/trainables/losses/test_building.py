"""From the section `loss` to the loss of each head."""

import json
from functools import partial

import numpy as np
import pytest

from tests.messages import mistaken
from trainables.config import section
from trainables.data.targets import Classes, Scheme, read_task
from trainables.losses import Head, build_losses
from trainables.losses.ordinal import coral
from trainables.registry import ConfigError

SCHEME = Scheme(
    (
        Classes("mask", ("worn", "incorrect", "absent")),
        Classes("gender", ("male", "female")),
        Classes("age", ("<30", "30-59", ">=60"), (30, 60)),
    )
)


def build(task, config):
    heads = read_task(task, SCHEME).head_schemes
    return build_losses(config, heads, [Head(head.kind, np.full(head.classes, 50.0), 100) for head in heads])


def said(task, **settings):
    with pytest.raises(ConfigError) as caught:
        build(task, section("loss", **settings))
    return str(caught.value)


def test_each_head_is_weighted_by_its_own_images():
    heads = read_task("heads", SCHEME).head_schemes
    counts = [np.array([50.0, 10.0, 10.0]), np.array([30.0, 40.0]), np.array([40.0, 25.0, 5.0])]
    losses = build_losses(section("loss", alpha="inverse"), heads, [Head("classes", count, 70) for count in counts])
    for loss, count in zip(losses, counts, strict=True):
        assert loss.keywords["weights"].tolist() == pytest.approx((70 / len(count) / count).tolist())


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_list_of_weights_that_does_not_fit_is_refused_for_every_head_it_does_not_fit(name):
    fix = "none, inverse or effective"
    joint = [("loss/alpha: ", "2 weights", "mask x gender x age", "18 classes", fix)]
    assert not mistaken([said("joint", name=name, alpha=(1.0, 2.0))], joint)
    heads = [("loss/alpha: ", "2 weights", f"head of {target}", "3 classes", fix) for target in ("mask", "age")]
    assert not mistaken(said("heads", name=name, alpha=(1.0, 2.0)).splitlines(), heads)
    assert len(build("gender", section("loss", name=name, alpha=(1.0, 2.0)))) == 1


def test_each_head_may_have_an_alpha_of_its_own():
    heads = read_task("heads", SCHEME).head_schemes
    counts = [np.array([50.0, 10.0, 10.0]), np.array([30.0, 40.0]), np.array([40.0, 25.0, 5.0])]
    config = section("loss", alpha=["none", [1.0, 3.0], "inverse"])
    mask, gender, age = build_losses(config, heads, [Head("classes", count, 70) for count in counts])
    assert mask.keywords["weights"] is None
    assert gender.keywords["weights"].tolist() == pytest.approx((np.array([1, 3]) * 70 / 150).tolist())
    assert age.keywords["weights"].tolist() == pytest.approx((70 / 3 / counts[2]).tolist())
    assert type(config).model_validate(json.loads(config.model_dump_json())) == config


def test_alphas_that_do_not_fit_the_heads_are_refused_by_their_number_or_by_the_head():
    assert not mistaken([said("heads", alpha=["none", "inverse"])], [("loss/alpha: ", "2", "3 heads", "mask; gender; age", "give 3")])
    assert not mistaken([said("joint", alpha=["none", "inverse"])], [("loss/alpha: ", "2", "one head", "mask x gender x age", "give 1")])
    wrong = [("loss/alpha: ", "2 weights", "head of age", "3 classes")]
    assert not mistaken([said("heads", alpha=["none", [1.0, 2.0], [1.0, 2.0]])], wrong)
    with pytest.raises(ConfigError, match="loss/alpha: write none, inverse.*one for each head"):
        section("loss", alpha=[1.0, "inverse"])


def test_coral_trains_the_ordinal_heads_and_the_named_loss_the_others():
    mask_gender, age = build([["mask", "gender"], ["age"]], section("loss", name="focal", ordinal="coral"))
    assert age is coral and isinstance(mask_gender, partial)
    assert build("heads", section("loss", name="soft_f1", ordinal="coral")) == [*build("heads", section("loss", name="soft_f1"))[:2], coral]


def test_a_number_that_decides_the_class_needs_to_be_trained_and_a_head_of_its_own():
    assert build("heads", section("loss", ordinal="number", regression=0.1))[2] is coral
    assert not mistaken([said("joint", ordinal="number", regression=0.1)], [("loss/ordinal: number ", "task", "heads", "age", "none")])
    with pytest.raises(ConfigError, match="loss/ordinal: number cuts .* loss/regression .* is 0; set that above 0"):
        section("loss", ordinal="number")


def test_weights_need_to_fit_only_the_heads_that_the_named_loss_trains():
    losses = build([["gender"], ["age"]], section("loss", alpha=(1.0, 2.0), ordinal="coral"))
    assert losses[1] is coral


def test_coral_without_a_head_of_an_ordinal_target_alone_is_refused_with_the_tasks_that_have_one():
    assert not mistaken([said("joint", ordinal="coral")], [("loss/ordinal: coral ", "task", "heads", "age", "none")])
    assert not mistaken([said("gender", ordinal="coral")], [("loss/ordinal: coral ", "none")])


def test_all_mistakes_of_the_section_are_reported_at_once():
    assert [line.split(":")[0] for line in said("joint", ordinal="coral", alpha=(1.0,)).splitlines()] == ["loss/ordinal", "loss/alpha"]

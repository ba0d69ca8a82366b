import itertools
import json

import numpy as np
import pytest

from tests.conftest import nightly_after
from tests.messages import mistaken
from trainables.data.images import count_lines
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import Classes, Number, Scheme, Tags, compose, read_target, read_task
from trainables.registry import ConfigError

CONTEST = contest_scheme((30, 60))


def random_scheme(rng) -> Scheme:
    sizes = rng.integers(2, 5, size=rng.integers(1, 5))
    return Scheme(tuple(Classes(f"a{index}", tuple(f"v{value}" for value in range(size))) for index, size in enumerate(sizes)))


def random_rows(rng, images: int, classes: int) -> np.ndarray:
    return rng.dirichlet(np.ones(classes), size=images)


def test_the_contests_class_is_6_mask_plus_3_gender_plus_age():
    labels = np.array(list(itertools.product(range(3), range(2), range(3))))
    assert CONTEST.joint(labels).tolist() == [6 * mask + 3 * gender + age for mask, gender, age in labels]
    assert CONTEST.joint(labels).tolist() == list(range(18))


@pytest.mark.parametrize("seed", nightly_after(4, range(50)))
def test_joint_and_split_are_inverses_in_every_scheme(seed):
    scheme = random_scheme(np.random.default_rng(seed))
    classes = np.arange(scheme.classes)
    labels = scheme.split(classes)
    assert (scheme.joint(labels) == classes).all()
    assert (labels < scheme.sizes).all() and len(set(map(tuple, labels))) == scheme.classes


def test_class_names_read_like_a_group():
    names = CONTEST.class_names()
    assert (names[0], names[7], names[17]) == ("worn, male, <30", "incorrect, male, 30-59", "absent, female, >=60")


def test_cuts_make_one_band_more_than_there_are_cuts():
    assert Classes.banded("years", (25,)) == Classes("years", ("<25", ">=25"), (25,))
    assert Classes.banded("years", (20, 40, 58)).values == ("<20", "20-39", "40-57", ">=58")


QUESTIONS = [Classes.banded("years", (30, 60)).question("years>=60"), Classes("colour", ("red", "sea", "sky")).question("colour=sea|sky")]


@pytest.mark.parametrize(
    "target", [*CONTEST.targets, Classes("class", ("a, b", "c")), Tags("scene", ("sea", "sun, set")), Number("age"), *QUESTIONS]
)
def test_a_target_comes_back_from_json(target):
    assert read_target(json.loads(json.dumps(target.plain()))) == target


MIXED = Scheme((Classes("sex", ("f", "m")), Tags("scene", ("sea", "sun", "snow")), Number("age")))


def test_a_scheme_of_several_kinds_is_answered_kind_by_kind():
    assert MIXED.kinds == ("classes", "tags", "number")
    widths = [MIXED.of_kind(kind).classes for kind in MIXED.kinds]
    names = [MIXED.of_kind(kind).class_names() for kind in MIXED.kinds]
    assert (widths, names) == ([2, 3, 1], [["f", "m"], ["sea", "sun", "snow"], ["age"]])


def test_a_task_has_a_head_for_each_kind_and_answers_each_by_its_own():
    joint, heads = read_task("joint", MIXED), read_task("heads", MIXED)
    assert joint.heads == heads.heads == (("sex",), ("scene",), ("age",))
    arrays = [np.array([[0.2, 0.8]]), np.array([[0.1, 0.7, 0.9]]), np.array([[33.5]])]
    for kind, array in zip(MIXED.kinds, arrays, strict=True):
        np.testing.assert_array_equal(joint.answer(arrays, kind), array)
    assert read_task("age", MIXED).scheme == MIXED.of_kind("number")


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_marginal_probabilities_equal_a_slow_sum(seed):
    rng = np.random.default_rng(seed)
    scheme = random_scheme(rng)
    names = tuple(name for name in scheme.names if rng.random() < 0.6) or scheme.names
    joint = random_rows(rng, 4, scheme.classes)
    slow = np.zeros((4, scheme.part(names).classes))
    for number, labels in enumerate(scheme.split(np.arange(scheme.classes))):
        slow[:, scheme.part(names).joint(labels[None, scheme.columns(scheme.part(names).names)])[0]] += joint[:, number]
    np.testing.assert_allclose(scheme.marginal(names, joint), slow)


@pytest.mark.parametrize("seed", nightly_after(4, range(50)))
def test_compose_equals_a_slow_product_however_attributes_share_heads(seed):
    rng = np.random.default_rng(seed)
    scheme = random_scheme(rng)
    head_of = rng.integers(0, 2, size=len(scheme.names))
    groups = [tuple(name for name, head in zip(scheme.names, head_of, strict=True) if head == wanted) for wanted in (1, 0)]
    parts = [(scheme.part(group), random_rows(rng, 4, scheme.part(group).classes)) for group in groups if group]
    slow = np.ones((4, scheme.classes))
    for image, joint in itertools.product(range(4), range(scheme.classes)):
        labels = scheme.split(np.array([joint]))
        for part, probabilities in parts:
            slow[image, joint] *= probabilities[image, part.joint(labels[:, scheme.columns(part.names)])[0]]
    np.testing.assert_allclose(compose(scheme, parts), slow)
    np.testing.assert_allclose(compose(scheme, parts).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("task", "heads"),
    [
        ("joint", [("mask", "gender", "age")]),
        ("heads", [("mask",), ("gender",), ("age",)]),
        ("age", [("age",)]),
        ([["mask", "gender"], ["age"]], [("mask", "gender"), ("age",)]),
        ([["age", "mask"]], [("mask", "age")]),
        ([["age"], ["mask"]], [("age",), ("mask",)]),
    ],
)
def test_a_task_names_its_heads(task, heads):
    read = read_task(task, CONTEST)
    assert list(read.heads) == heads
    assert set(read.scheme.names) == {name for head in heads for name in head}


@pytest.mark.parametrize("task", ["joint", "heads", [["mask", "age"], ["gender"]], [["age"], ["gender", "mask"]]])
def test_certain_heads_compose_to_the_joint_class_that_their_targets_came_from(task):
    read = read_task(task, CONTEST)
    classes = np.arange(18)
    targets = read.targets(CONTEST.split(classes))
    heads = [np.eye(part.classes)[targets[:, index]] for index, part in enumerate(read.head_schemes)]
    np.testing.assert_array_equal(read.answer(heads), np.eye(18))


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("aeg", [("'aeg' ", "mask, gender, age")]),
        ([["mask"], ["mask", "age"]], [("mask ", "two heads")]),
        ([["mask", "mask"]], [("mask ", "two heads")]),
        ([["mask"], []], [("a head without targets",)]),
        ([], [("a head without targets",)]),
        ([["hat"], ["age"], ["age"], []], [("'hat' ",), ("age ", "two heads"), ("a head without targets",)]),
    ],
)
def test_a_wrong_task_is_refused_with_every_mistake(task, expected):
    with pytest.raises(ConfigError) as caught:
        read_task(task, CONTEST)
    assert {mistake.path for mistake in caught.value.mistakes} == {"task"}
    assert not mistaken((mistake.message for mistake in caught.value.mistakes), expected)


def test_images_are_counted_by_class_and_of_many_classes_the_most_and_the_least_are_named():
    few = Scheme((Classes("kind", ("cat", "dog", "emu")),))
    assert count_lines(few, lambda part: np.array([0, 2, 2])) == ["kind (3 classes): cat 1, dog 0, emu 2"]
    many = Scheme((Classes("kind", tuple(f"k{number}" for number in range(100))),))
    (line,) = count_lines(many, lambda part: np.repeat(np.arange(100), np.arange(100)))
    assert len(line) < 160
    assert all(words in line for words in ("100 classes", "k99 99", "k98 98", "k1 1", "k0 0")) and "k50" not in line


QUESTIONS = {
    "age<30": ((0, 1, 1), ("<30", ">=30")),
    "age>=60": ((0, 0, 1), ("<60", ">=60")),
    "mask=worn": ((0, 1, 1), ("worn", "not worn")),
    "mask=absent|worn": ((0, 1, 0), ("absent or worn", "not absent or worn")),
}


@pytest.mark.parametrize("asked", QUESTIONS)
def test_a_question_about_a_target_has_two_classes_that_follow_from_its_value(asked):
    answers, values = QUESTIONS[asked]
    task = read_task(asked, CONTEST)
    ((target,),) = (part.targets for part in task.head_schemes)
    assert (target.name, target.values) == (asked, values)
    labels = CONTEST.split(np.arange(18))
    column = labels[:, CONTEST.names.index(target.of)]
    assert CONTEST.joint_of(task.scheme.names, labels).tolist() == [answers[value] for value in column]


def test_a_head_may_join_a_question_with_other_targets_in_the_datas_order():
    task = read_task([["age<30", "gender"], ["mask=worn"]], CONTEST)
    assert task.heads == (("gender", "age<30"), ("mask=worn",))
    assert task.head_schemes[0].class_names() == ["male, <30", "male, >=30", "female, <30", "female, >=30"]
    assert CONTEST.about(task.scheme.names) == CONTEST.names


def test_what_is_said_of_a_question_is_the_sum_over_the_values_that_have_its_answer():
    joint = random_rows(np.random.default_rng(0), 5, 18)
    found = CONTEST.marginal(("gender", "age>=60"), joint).reshape(5, 2, 2)
    cube = joint.reshape(5, 3, 2, 3).sum(axis=1)
    np.testing.assert_allclose(found, np.stack([cube[..., :2].sum(axis=2), cube[..., 2]], axis=-1))


def test_answers_to_questions_compose_by_the_normalised_product_of_what_each_says_of_a_class():
    rng, age = np.random.default_rng(0), CONTEST.part(("age",))
    young, old = random_rows(rng, 6, 2), random_rows(rng, 6, 2)
    found = compose(age, [(CONTEST.part(("age<30",)), young), (CONTEST.part(("age>=60",)), old)])
    by_hand = np.stack([young[:, 0] * old[:, 0], young[:, 1] * old[:, 0], young[:, 1] * old[:, 1]], axis=1)
    np.testing.assert_allclose(found, by_hand / by_hand.sum(axis=1, keepdims=True))
    certain = compose(age, [(CONTEST.part(("age<30",)), np.eye(2)[[0, 1, 0]]), (CONTEST.part(("age>=60",)), np.eye(2)[[0, 1, 1]])])
    np.testing.assert_allclose(certain, [[1, 0, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]], atol=1e-9)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("age<40", ["age<40", "30, 60", "age<30"]),
        ("mask<30", ["mask<30", "cut from no number", "mask=worn"]),
        ("mask=on", ["mask=on", "worn, incorrect, absent"]),
        ("mask=worn|incorrect|absent", ["mask=worn"]),
        ([["age<30"], ["age>=60"]], ["age<30 and age>=60", "choice"]),
        ([["age", "age<30"]], ["age and age<30"]),
    ],
)
def test_a_question_that_nothing_answers_is_refused_with_what_can_be_asked(task, words):
    with pytest.raises(ConfigError) as error:
        read_task(task, CONTEST)
    assert all(word in str(error.value) for word in words)

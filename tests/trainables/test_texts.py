"""Which texts stand for which class, and what is said of texts that stand for none."""

import pytest

from tests.messages import mistaken
from trainables.config import TrialConfig
from trainables.data.targets import Classes, Number, Scheme, Tags, read_task
from trainables.registry import ConfigError
from trainables.texts import texts_of

ANIMAL, PLACE = Classes("animal", ("cat", "sea_lion", "other")), Classes("place", ("zoo", "other"))
SCHEME = Scheme((ANIMAL, PLACE))


def found(texts, task="joint", scheme=SCHEME):
    model = TrialConfig.from_values({"epochs": 1, "model": {"backbone": "any", "texts": texts}, "optimizer": {"lr": 1.0}}).model
    return texts_of(model.texts, read_task(task, scheme), scheme)


def refused(texts, task="joint", scheme=SCHEME):
    with pytest.raises(ConfigError) as caught:
        found(texts, task, scheme)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize("texts", ["a {class}!", ["a {class}!"]])
@pytest.mark.parametrize("task", ["joint", "heads"])
def test_a_template_has_the_name_of_every_class_with_spaces(texts, task):
    expected = {"animal": [["a cat!"], ["a sea lion!"], ["a other!"]], "place": [["a zoo!"], ["a other!"]]}
    assert found(texts, task) == expected


def test_lists_are_the_texts_of_a_class_and_templates_those_of_the_others():
    texts = ["a {class}", "{class}s", ["animal=other", "a beast"], ["zoo", "cages", "a park"]]
    assert found(texts) == {
        "animal": [["a cat", "cats"], ["a sea lion", "sea lions"], ["a beast"]],
        "place": [["cages", "a park"], ["a other", "others"]],
    }
    assert found(texts, "place") == {"place": found(texts)["place"]}, "classes of other targets may have texts, too"


def test_values_of_a_question_are_classes():
    assert found(["{class}", ["not cat", "no cat"]], "animal=cat") == {"animal=cat": [["cat"], ["no cat"]]}


def test_all_that_is_wrong_with_texts_is_said_at_once():
    texts = [["cot", "a cat"], ["other", "a thing"], ["cat", "a cat"], ["animal=cat", "a tom"], ["elephant", "an elephant"]]
    assert not mistaken(
        refused(texts),
        [
            ("model/texts: ", "'cot'", "did you mean cat?"),
            ("model/texts: ", "'other'", "animal=other or place=other"),
            ("model/texts: ", "animal=cat has two lists"),
            ("model/texts: ", "'elephant'", "animal=cat, animal=sea_lion, animal=other, place=zoo, place=other"),
            ("model/texts: ", "animal=sea_lion, animal=other, place=zoo, place=other"),
        ],
    )
    assert not mistaken(refused("a photo"), [("model/texts: ", "'a photo'", "{class}")])


def test_tags_and_numbers_have_no_texts():
    scheme = Scheme((ANIMAL, Tags("seen", ("sun", "sea")), Number("weight")))
    assert not mistaken(refused("{class}", "heads", scheme), [("model/heads: ", "seen is tags"), ("model/heads: ", "weight is a number")])
    assert found("{class}", "animal", scheme).keys() == {"animal"}


@pytest.mark.parametrize("texts", [3, [["cat"]], [[]], [["cat", 3]]])
def test_what_are_no_texts_is_refused_with_what_are(texts):
    assert not mistaken(refused(texts), [("model/texts: ", "{class}", "[class, text, ...]")])

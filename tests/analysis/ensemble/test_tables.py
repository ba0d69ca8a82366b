import pytest

from analysis.ensemble.tables import missing_weights_words, reason
from analysis.evaluation.decide import SINGLE, Choice, Evaluated, MissingWeights
from analysis.evaluation.uncertainty import Gain


@pytest.mark.parametrize(
    "asked, gain, interval, safe, said",
    [
        ("auto", 0.05, (0.01, 0.09), False, ["chosen on validation", "+0.050", ", significant (p 0.2)"]),
        ("auto", 0.02, (-0.01, 0.05), False, ["chosen on validation", "+0.020", "not significant (p 0.2)"]),
        ("auto", 0.02, (-0.01, 0.05), True, ["--safe", "+0.020", "not significant"]),
        ("auto", 0.0, (0.0, 0.0), False, ["no vote"]),
        ("soft", -0.02, (-0.05, 0.01), False, ["as asked", "-0.020", "not significant"]),
    ],
)
def test_why_this_answers_is_shown(asked, gain, interval, safe, said):
    evaluated = {
        SINGLE: Evaluated(0.5, (0.4, 0.6), Gain(0.0, (0.0, 0.0))),
        "soft": Evaluated(0.5 + gain, (0.4, 0.6), Gain(gain, interval, 0.2)),
    }
    found = reason(Choice(asked, "soft", evaluated, safe))
    assert all(words in found for words in said), found


def test_a_vote_without_all_its_weights_is_named_with_the_commands_that_train_its_trials_again():
    found = missing_weights_words(MissingWeights(Evaluated(0.6, (0.5, 0.7), Gain(0.1, (0.0, 0.2))), ("faces/7", "my run/1", "faces/12")))
    first, second = found.splitlines()[1:]
    assert first.endswith(" -m tuner.refit --run faces --trials 7,12 --all-data")
    assert second.endswith(" -m tuner.refit --run 'my run' --trials 1 --all-data")

import pytest

from analysis.ensemble.tables import reason
from analysis.evaluation.decide import SINGLE, Choice, Judged
from analysis.evaluation.uncertainty import Gain


@pytest.mark.parametrize(
    "asked, gain, interval, forced, words",
    [
        ("auto", 0.05, (0.01, 0.09), False, "chosen on validation, its gain over the best single on people it was not fitted on is +0.050"),
        ("auto", 0.02, (-0.01, 0.05), False, "the gain of the soft vote, chosen on validation, cannot be told from none: +0.020"),
        ("auto", 0.0, (0.0, 0.0), False, "no vote gains anything over it on people that the vote was not fitted on"),
        (
            "auto",
            -0.02,
            (-0.05, 0.01),
            True,
            "chosen on validation and forced, though its gain over the best single cannot be told from",
        ),
        ("soft", -0.02, (-0.05, 0.01), False, "the gain of the soft vote, as asked, cannot be told from none: -0.020"),
    ],
)
def test_why_this_answers_is_said(asked, gain, interval, forced, words):
    judged = {SINGLE: Judged(0.5, (0.4, 0.6), Gain(0.0, (0.0, 0.0))), "soft": Judged(0.5 + gain, (0.4, 0.6), Gain(gain, interval))}
    assert reason(Choice(asked, "soft", judged, forced)).startswith(words)

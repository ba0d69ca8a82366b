"""From members to a scored answer: validation chooses the vote, the hold-out scores it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.compose import Member, combine
from analysis.ensemble import ENSEMBLES
from analysis.ensemble.scoring import Score, score_answers
from analysis.trials import Runs, Trial
from trainables.choices import choose
from trainables.data.labels import Scheme

SINGLE = "best single"


@dataclass(frozen=True)
class Choice:
    """A vote, and how the votes compare on validation."""

    asked: str  # auto or a name in ENSEMBLES
    vote: str
    scores: dict[str, float]  # validation macro F1 of every vote


@dataclass(frozen=True)
class Outcome:
    """Members, their votes, and what each answer is worth."""

    members: tuple[Member, ...]  # best on validation first
    member_scores: tuple[float, ...]  # hold-out macro F1 of each
    choice: Choice
    answers: dict[str, np.ndarray]  # hold-out (photos, classes): the best single member and each vote
    scores: dict[str, Score]  # of each answer, on the hold-out

    @property
    def vote(self) -> str:
        return self.choice.vote

    @property
    def scheme(self) -> Scheme:
        return self.members[0].scheme


def choose_vote(asked: str, members: Sequence[Member], runs: Runs) -> Choice:
    """The vote that was asked for; `auto` takes the highest on validation, the first of ENSEMBLES when tied.

    Raises: ConfigError for a name that is neither auto nor in ENSEMBLES.
    """
    choose({"auto": None, **ENSEMBLES}, asked, "--vote")
    valid = np.stack([member.valid for member in members])
    scores = {vote: runs.valid.macro_f1(members[0].scheme, ensemble(valid)) for vote, ensemble in ENSEMBLES.items()}
    return Choice(asked, max(scores, key=scores.get) if asked == "auto" else asked, scores)


def member_probabilities(members: Sequence[Member], predicted: Mapping[Trial, np.ndarray]) -> np.ndarray:
    """Probabilities (members, photos, classes) from those of each trial."""
    return np.stack([combine(member.scheme, member.trials, predicted) for member in members])


def score_members(runs: Runs, members: Sequence[Member], choice: Choice, probabilities: np.ndarray, seed: int) -> Outcome:
    """The outcome for hold-out probabilities (members, photos, classes); the seed draws the people of the bootstrap."""
    scheme = members[0].scheme
    answers = {SINGLE: probabilities[0], **{name: ensemble(probabilities) for name, ensemble in ENSEMBLES.items()}}
    return Outcome(
        members=tuple(members),
        member_scores=tuple(runs.holdout.macro_f1(scheme, single) for single in probabilities),
        choice=choice,
        answers=answers,
        scores=score_answers(answers, runs.holdout, scheme, seed),
    )

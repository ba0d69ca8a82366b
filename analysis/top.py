"""Which members vote: the best on validation."""

from collections.abc import Sequence

from analysis.compose import Member
from trainables.record import RunError


def best(members: Sequence[Member], count: int) -> list[Member]:
    """The members with the highest validation macro F1, best first; ties go to the lower trial number.

    Raises: RunError, saying how many there are, when `count` is below 1 or above that.
    """
    if not 1 <= count <= len(members):
        raise RunError(f"--top is {count}, but there are {len(members)} members to choose from; take 1 to {len(members)}")
    return sorted(members, key=lambda member: (-member.score, [trial.record.number for trial in member.trials]))[:count]

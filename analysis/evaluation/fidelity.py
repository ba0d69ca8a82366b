"""What is known of early scores: how well those at a rung rank the trials. The search writes it down, the report draws it."""

from dataclasses import dataclass

MISLEADING = 0.3  # below it a pruner's choice is nearer to a draw of lots than to a choice


@dataclass(frozen=True)
class Fidelity:
    """How well the scores at a rung rank the trials as their final scores do."""

    epoch: int  # of the rung
    backbone: str | None  # None: all trials
    trials: int
    correlation: float | None  # Spearman's, for all trials; None where fewer than 3 ran to the end or all scores are equal
    restriction: float = 1.0  # how many times more the scores at the rung are spread among all trials than among those that ran to the end

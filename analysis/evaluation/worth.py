"""What an ensemble is called and worth, as its scores.json says."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from analysis.evaluation.search.summary import answer_of
from trainables.data.targets import Scheme
from trainables.metrics import metric_of
from trainables.record import DAMAGE, read_json
from trainables.storage import Folder


@dataclass(frozen=True)
class Score:
    """Of the answer, on images that no choice has seen."""

    metric: str  # its name, as in run/metric
    title: str  # the same in words
    answer: str  # the vote that answers, or best single
    score: float
    interval: tuple[float, float]  # 95 % CI
    images: int  # held out
    groups: int


@dataclass(frozen=True)
class Worth:
    """Of an ensemble."""

    name: str
    score: Score | None = None  # None where nobody knows
    made_with: dict[str, str] = field(default_factory=dict)  # versions

    def plain(self) -> dict[str, Any]:
        """As JSON knows it; `read` takes it back."""
        return asdict(self)

    @classmethod
    def read(cls, plain: dict[str, Any]) -> "Worth":
        """The inverse of `plain`. Raises: ValueError."""
        return TypeAdapter(cls).validate_python(plain)


def read_worth(folder: Folder, scheme: Scheme) -> Worth:
    """Of the ensemble that lies in a folder; without a score where no scores.json that can be read lies there."""
    whole = folder.resolve()
    name = whole.parent.name if whole.name == "ensemble" else whole.name
    try:
        scores: dict[str, Any] = read_json(folder / "scores.json", "scores")
        found = answer_of(scores)
        low, high = found["interval"]
        score = Score(
            metric=scores["metric"],
            title=metric_of(scores["metric"], scheme).title,
            answer=found["answer"],
            score=found["score"],
            interval=(low, high),
            images=scores["holdout"]["photos"],
            groups=scores["holdout"]["people"],
        )
    except (FileNotFoundError, *DAMAGE):
        return Worth(name)
    return Worth(name, score, scores.get("versions", {}))

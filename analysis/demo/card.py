"""What there is to know of the ensemble that answers: its classes, what it is worth, what it was made with."""

from typing import Any

from pydantic import BaseModel, Field

from analysis.demo.model import Model
from analysis.evaluation.search.summary import answer_of
from trainables.metrics import metric_of
from trainables.record import DAMAGE, read_json
from trainables.storage import Folder
from trainables.versions import code_version, device_name, versions


class CardTarget(BaseModel):
    """One target."""

    name: str
    kind: str = Field(description="classes, tags or number")
    values: list[str] = Field(description="its classes or tags")


class Score(BaseModel):
    """What the answer is worth on images that no choice has seen."""

    metric: str = Field(description="its name, as in run/metric")
    title: str = Field(description="the same in words")
    answer: str = Field(description="the vote that answers, or best single")
    score: float
    interval: tuple[float, float] = Field(description="95 % CI")
    images: int = Field(description="held out")
    groups: int


class ModelCard(BaseModel):
    """The ensemble."""

    name: str
    targets: list[CardTarget]
    classes: list[str] = Field(description="what the numbers of a prediction's scores stand for")
    score: Score | None = Field(description="null where no scores.json that can be read lies beside the ensemble")
    views: list[str] = Field(description="what the models see of an image: size, crop and fit")
    trials: int = Field(description="that answer")
    models: int = Field(description="networks that an image goes through, once for each transform")
    transforms: list[str] = Field(description="test-time augmentation")
    device: str
    versions: dict[str, str] = Field(description="of what answers here")
    made_with: dict[str, str] = Field(description="of what made the ensemble, where that is known")


def card_of(folder: Folder, model: Model) -> ModelCard:
    """The card of an ensemble's folder and its model."""
    scheme, answering = model.scheme, model.answering
    whole = folder.resolve()
    try:
        scores: dict[str, Any] = read_json(folder / "scores.json", "scores")
        found = answer_of(scores)
        score = Score(
            metric=scores["metric"],
            title=metric_of(scores["metric"], scheme).title,
            answer=found["answer"],
            score=found["score"],
            interval=found["interval"],
            images=scores["holdout"]["photos"],
            groups=scores["holdout"]["people"],
        )
    except (FileNotFoundError, *DAMAGE):
        scores, score = {}, None
    return ModelCard(
        name=whole.parent.name if whole.name == "ensemble" else whole.name,
        targets=[CardTarget(name=one.name, kind=one.kind, values=list(one.values)) for one in scheme.targets],
        classes=scheme.class_names(),
        score=score,
        views=list(map(str, model.views)),
        trials=len(answering.trials),
        models=sum(len(trial.models) for trial in answering.trials),
        transforms=list(answering.content.pipeline.looks),
        device=device_name(model.device),
        versions={"sweepvote": code_version(), **versions()},
        made_with=scores.get("versions", {}),
    )

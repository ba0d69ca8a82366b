"""What there is to know of the ensemble that answers: its classes, what it is worth, what it was made with."""

from dataclasses import asdict

from pydantic import BaseModel, Field

from analysis.demo.model import Model


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
    flags: bool = Field(description="whether images unlike anything learned are told")
    heat_maps: bool = Field(description="whether it can be told where the models look")
    device: str
    versions: dict[str, str] = Field(description="of what answers here")
    made_with: dict[str, str] = Field(description="of what made the ensemble, where that is known")


def card_of(model: Model) -> ModelCard:
    """The card of what answers."""
    scheme, facts = model.scheme, model.answers.facts()
    return ModelCard(
        name=facts.worth.name,
        targets=[CardTarget(name=one.name, kind=one.kind, values=list(one.values)) for one in scheme.targets],
        classes=scheme.class_names(),
        score=Score(**asdict(facts.worth.score)) if facts.worth.score else None,
        views=list(map(str, model.views)),
        trials=facts.trials,
        models=facts.models,
        transforms=facts.transforms,
        flags=model.answers.novelty is not None,
        heat_maps=facts.heat_maps,
        device=facts.device,
        versions=facts.versions,
        made_with=facts.worth.made_with,
    )

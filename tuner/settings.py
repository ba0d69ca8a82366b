"""The `run:` section of a space: how much to search, not what."""

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from search_spaces.schema import Space
from trainables.metrics import DEFAULT, METRICS
from trainables.registry import Count, Section, Share, nearest


class RunSettings(Section):
    """Never searched; `--trials`, `--keep` and friends or `--set run/epochs=3` override it."""

    trials: Count = 20  # configurations to try
    epochs: Count = 10  # of a trial that nothing stops
    metric: Literal[tuple(METRICS)] = DEFAULT  # what trials and votes are chosen by
    grace: Count = 1  # epochs before ASHA may stop a trial
    reduction: Annotated[float, Field(gt=1)] = 3.0  # ASHA lets one in this many go on at each rung
    early_stopping: bool = True  # whether ASHA stops hopeless trials
    keep_running: Share = 0.05  # share of trials that ASHA may not stop; they tell how far its early judgement can be trusted
    keep: Count = 10  # trials whose weights stay on disk, best first
    retries: Annotated[int, Field(ge=0)] = 2  # of a trial whose process dies; one that gets on meanwhile has them all again

    @model_validator(mode="after")
    def _grace_within_epochs(self) -> "RunSettings":
        if self.grace > self.epochs:
            raise ValueError(f"run/grace is {self.grace}, more than run/epochs, which is {self.epochs}")
        return self


def run_mistakes(space: Space) -> list[tuple[str, str]]:
    """Every (path, message) wrong with the section `run`."""
    try:
        RunSettings.model_validate(space.run)
    except ValidationError as error:
        return [_mistake(detail) for detail in error.errors()]
    return []


def _mistake(detail: dict) -> tuple[str, str]:
    path = "/".join(["run", *map(str, detail["loc"])])
    if detail["type"] == "extra_forbidden":
        known = [f"run/{name}" for name in RunSettings.model_fields]
        return path, f"is not a setting{nearest(path, known) or '; there are ' + ', '.join(known)}"
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(detail["input"], dict) else f", got {detail['input']!r}"
    return path, f"{message[0].lower()}{message[1:]}{got}"

"""The `run:` section of a space: how much to search, not what."""

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from search_spaces.schema import Space
from trainables.metrics import DEFAULT, METRICS
from trainables.registry import Count, Section, Share, nearest, setting


class RunSettings(Section):
    """Never searched; `--trials`, `--keep` and friends or `--set run/epochs=3` override it."""

    trials: Count = setting("configurations to try", 20)
    epochs: Count = setting("maximum epochs of a trial", 10)
    metric: Literal[tuple(METRICS)] = setting("what trials and votes are chosen by", DEFAULT)
    grace: Count = setting("epochs before a trial may be stopped, at most run/epochs", 1)
    reduction: Annotated[float, Field(gt=1)] = setting("one trial in this many goes on at each rung of ASHA", 3.0)
    early_stopping: bool = setting("whether hopeless trials are stopped", True)
    keep_running: Share = setting("share of the trials that may not be stopped, which tells how far early scores can be trusted", 0.05)
    keep: Count = setting("trials whose weights stay on disk, best first", 10)
    retries: Annotated[int, Field(ge=0)] = setting("of a trial whose process dies; one that gets on meanwhile has them all again", 2)

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

"""The `run:` section of a space: how much to search and by what, not what to search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from search_spaces.schema import Space
from trainables.data.targets import Scheme
from trainables.metrics import AUTO, BY_NAME, DEFAULTS, Metric, metric_of, others_of
from trainables.metrics.asked import EXPECTED_COST, Costs, parts_of, with_costs
from trainables.registry import ConfigError, Count, Mistake, Share, nearest, setting
from tuner.searchers import SEARCHERS
from tuner.stoppers import STOPPERS, AshaSettings, MedianSettings
from tuner.stoppers.history import Stopper


@dataclass(frozen=True)
class NameIn:
    """Marks a text that must be a name in the table, whatever has been added to it meanwhile."""

    table: Mapping[str, Any]
    also: tuple[str, ...] = ()  # words that are no names

    @property
    def names(self) -> list[str]:
        """All that may be written."""
        return [*self.also, *self.table]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": self.names}

    def _check(self, name: str) -> str:
        if name not in self.also and name not in self.table:
            raise ValueError(f"{name!r} does not exist{nearest(name, self.names)}; choose one of {', '.join(self.names)}")
        return name


class RunSettings(AshaSettings, MedianSettings):
    """Never searched; `--trials`, `--keep` and friends or `--set run/epochs=3` override it.

    What only some pruners read begins with their names; the others ignore it.
    """

    trials: Count = setting("number of trials", 20)
    epochs: Count = setting("maximum epochs of a trial", 10)
    metric: Annotated[str, NameIn(BY_NAME, (AUTO,))] = setting(
        f"metric by which trials and votes are chosen, named as in scikit-learn (f1[spoiled]: F1 of that class); auto: "
        f"{DEFAULTS['classes']} for classes, {DEFAULTS['tags']} for tags, {DEFAULTS['number']} for a number",
        AUTO,
    )
    costs: Annotated[Costs, Field(strict=False)] = setting(
        "neg_expected_cost: cost of each wrong answer, true class -> predicted class -> cost; 1 where none is given",
        {},
        values="{ants: {bees: 5}}",
    )
    also: Annotated[tuple[Annotated[str, NameIn(BY_NAME)], ...], Field(strict=False)] = setting(
        "further metrics to report; run/metric alone decides", (), values="[accuracy, neg_log_loss]"
    )
    searcher: Annotated[str, NameIn(SEARCHERS)] = setting("search algorithm that proposes configurations", "tpe")
    pruner: Annotated[str, NameIn(STOPPERS)] = setting("stops bad trials early", "asha")
    early_stopping: bool = setting("false is short for run/pruner: none", True)
    keep_running: Share = setting("share of the trials that are never pruned; they show how reliable early scores are", 0.05)
    keep: Count = setting("how many of the best trials keep their weights on disk", 10)
    probe: bool = setting(
        "whether linear probes of all backbones and views that have weights come before the search; they do not count as run/trials", True
    )
    patience: Annotated[int, Field(ge=0)] = setting(
        "ends the search when so many further trials, or half as many as there are if that is more, are expected to gain less than the "
        "standard error of the best score; 0: never",
        0,
    )
    finalists: Annotated[int, Field(ge=0)] = setting(
        "the best configurations, baseline and best probe among them, that are trained on the other folds after the search; 0: none", 4
    )
    answer: bool = setting("end with the answer of analysis.ensemble, not with a table of trials", False)
    retries: Annotated[int, Field(ge=0)] = setting("restarts of a trial whose process died; each finished epoch resets the count", 2)

    @model_validator(mode="before")
    @classmethod
    def _no_pruner(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("early_stopping") is not False:
            return values
        if values.get("pruner", "none") != "none":
            raise ValueError(f"run/early_stopping: false means run/pruner: none, but run/pruner is {values['pruner']}; remove one of them")
        return {**values, "pruner": "none"}

    @model_validator(mode="after")
    def _grace_within_epochs(self) -> "RunSettings":
        if self.grace > self.epochs:
            raise ValueError(f"run/grace is {self.grace}, more than run/epochs ({self.epochs}); lower run/grace")
        return self

    def score(self) -> Metric:
        """The metric, once it is known (`for_targets`)."""
        return BY_NAME[self.metric]

    def for_targets(self, scheme: Scheme) -> Self:
        """The settings with the metrics for trials of these targets. Raises: ConfigError where these have no such."""
        metric, others = metrics_of(self.metric, self.costs, self.also, scheme)
        return self.model_copy(update={"metric": metric.name, "also": tuple(other.name for other in others)})

    def stopper(self) -> Stopper:
        """The pruner of the run."""
        return STOPPERS[self.pruner].build(self, self.epochs)


def metrics_of(name: str, costs: Costs, also: Sequence[str], scheme: Scheme) -> tuple[Metric, list[Metric]]:
    """The metric that decides, and those beside it. Raises: ConfigError."""
    if costs and EXPECTED_COST not in (parts_of(one)[0] for one in (name, *also)):
        raise ConfigError(
            [Mistake("run/costs", f"is used only by {EXPECTED_COST}; choose that as run/metric or in run/also, or remove this")]
        )
    metric = metric_of(with_costs(name, costs), scheme)
    return metric, others_of([with_costs(other, costs) for other in also], metric, scheme)


def run_mistakes(space: Space) -> list[tuple[str, str]]:
    """Every (path, message) wrong with the section `run`."""
    try:
        read_settings(space.run)
    except ConfigError as error:
        return [(mistake.path, mistake.message) for mistake in error.mistakes]
    return []


def read_settings(values: Mapping[str, Any]) -> RunSettings:
    """The section `run`. Raises: ConfigError with everything that is wrong with it."""
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError([Mistake(*_mistake(detail)) for detail in error.errors()]) from None


def _mistake(detail: ErrorDetails) -> tuple[str, str]:
    path = "/".join(["run", *map(str, detail["loc"])])
    if detail["type"] == "extra_forbidden":
        known = [f"run/{name}" for name in RunSettings.model_fields]
        return path, f"is not a setting{nearest(path, known) or '; choose one of ' + ', '.join(known)}"
    if detail["type"] == "value_error":
        return path, detail["msg"].removeprefix("Value error, ")
    message = detail["msg"]
    return path, f"{message[0].lower()}{message[1:]}, got {detail['input']!r}"

"""Optuna's samplers behind Ray Tune's interface, with the true end of every trial."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from search_spaces.read import read_space
from search_spaces.schema import Choice, Domain, Space, as_optuna, same
from trainables.baseline import FIRST
from trainables.metrics import BY_NAME, DEFAULT, METRICS, Metric
from trainables.record import SPACE, Record, read_records, read_run
from trainables.seeding import generator
from trainables.storage import Folder, local_file
from tuner.searchers.given import GivenSearcher
from tuner.searchers.sampling import Ask, MakeSampler, distribution, quiet_study

OUT_OF_MEMORY = "memory"  # the constraint's name; above 0 is a violation


@dataclass(frozen=True)
class Branch:
    """A search among trials that predict the same: other scores are not comparable."""

    space: Space
    study: optuna.Study

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """By path."""
        return {parameter.path: parameter.domain for parameter in self.space.parameters}


def branches_of(space: Space, kinds: Mapping[str, Sequence[Any]], metric: Metric) -> dict[str, Branch]:
    """One for each of what trials can predict.

    Args:
        kinds: the tasks that the space can draw, by what they predict.
    """

    def only(tasks: Sequence[Any]) -> Space:
        return replace(
            space, parameters=tuple(replace(p, domain=Choice(tuple(tasks))) if p.path == "task" else p for p in space.parameters)
        )

    spaces = {kind: only(tasks) for kind, tasks in kinds.items()} if len(kinds) > 1 else {next(iter(kinds), ""): space}
    return {kind: Branch(own, quiet_study(optuna.samplers.RandomSampler(), metric)) for kind, own in spaces.items()}


class StudySearcher(GivenSearcher):
    """Proposes configurations by a sampler of Optuna, which of what trials can predict in turn: a study for each.

    Ray's own OptunaSearch tells Optuna that a trial which was stopped is complete, and leaves failed ones running for ever; here a
    finished trial counts with its best epoch, a stopped one as pruned with what it reached, one that did not fit the GPU as a violated
    constraint, any other failed one as failed.

    Optuna's study lists the trials by number, those of earlier commands as they were when these ended, so a sampler finds after a resume
    what it would have found without one. Each proposal has a sampler of its own, whose random numbers follow from the seed and the number.
    """

    def __init__(
        self,
        space: Space,
        fixed: dict[str, Any],
        *,
        sampler: MakeSampler,
        seed: int,
        trials: int,
        slots: Callable[[], int],
        metric: Metric = METRICS[DEFAULT],
        stopping: Callable[[], bool] = lambda: False,
        earlier: Iterable[Record] = (),
        resumed: Mapping[int, dict[str, Any]] | None = None,
        taken: Iterable[int] = (),
        baseline: Mapping[str, Any] | None = None,
        tries: Sequence[Mapping[str, Any]] = (),
        prior: Sequence[Mapping[str, Any]] = (),
        asked: Callable[[int], Mapping[str, Any] | None] = lambda number: None,
        kinds: Mapping[str, Sequence[Any]] | None = None,
        predicts: Callable[[Mapping[str, Any]], str] = lambda values: "",
    ):
        """
        Args:
            fixed: values that the run adds to every configuration (epochs, seed).
            sampler: makes the sampler of one proposal.
            trials: planned number; small searches start modelling after fewer random trials than Optuna's 10.
            metric: what scores are of.
            earlier: trials of this run, to learn from.
            resumed: nested values, by number, of trials that were interrupted or whose records are damaged; they are proposed first.
            taken: further numbers that no new trial may have.
            baseline: searched values, by path, of the first trial where no start entry says what that is.
            tries: those of what comes after it, before further start entries.
            prior: those that proposals begin with while little is known: the n-th is drawn with a weight of 1/n, and once more none.
            asked: searched values, by path, that somebody wants to be tried as the trial of this number, after all start entries; None:
                none wait.
            kinds: the tasks that the space can draw, by what they predict; None: all predict the same.
            predicts: what a trial of these settings predicts.
        """
        resumed = resumed or {}
        super().__init__(resumed, slots=slots, stopping=stopping, mode="max" if metric.sign > 0 else "min")
        self._space = space
        self._domains = {parameter.path: parameter.domain for parameter in space.parameters}
        self._fixed = fixed
        self._sampler = sampler
        self._seed = seed
        self._branches = branches_of(space, kinds or {}, metric)
        self._predicts = predicts if len(self._branches) > 1 else lambda values: next(iter(self._branches))
        self._startup = min(10, max(4, trials // len(self._branches) // 3))
        self._kinds: dict[int, str] = {}  # what trials predict, by our number
        self._trials: dict[int, optuna.Trial] = {}  # those that run, or will again, by our number
        self._reported: dict[int, set[int]] = {}  # epochs of these
        known = {record.number: record for record in earlier}
        values = {number: record.config.values() for number, record in known.items()} | dict(resumed)
        self._taken = {*values, *taken}
        starts = space.start_trials()
        if baseline and not starts and FIRST not in self._taken:
            starts = [_for_optuna(baseline)]
        starts[1:1] = map(_for_optuna, tries)
        self._start = deque(_untried(starts, [space.drawn(values[number]) for number in sorted(values)]))
        self._prior = [*map(_for_optuna, prior)]
        self._asked = asked
        self._next = 0
        self._kinds = {number: self._predicts(one) for number, one in sorted(values.items())}
        for number in sorted(values):
            reports = known[number].reports if number in known else ()
            if number in resumed:
                self._await(number, self._fitting(values[number]), reports)
            else:
                self._teach(known[number], self._fitting(values[number]))

    def has_more(self) -> bool:
        return True

    def propose(self) -> tuple[int, dict[str, Any]]:
        """The number and the nested values of a new trial."""
        number = self._free_number()
        given = self._start.popleft() if self._start else None
        if given is None and (values := self._asked(number)) is not None:
            given = _for_optuna(values)
        kind = self._kind_of(given or {})
        branch = self._branches[kind]
        if given is None and self._prior and len(branch.study.trials) < self._startup:
            given = self._from_prior(number)
        if given is not None:
            branch.study.enqueue_trial(given)
        ask = Ask(branch.space, number, seed=self._seed, startup=self._startup)
        with self._sampling(branch.study, self._sampler(ask)):
            trial = self._trials[number] = branch.study.ask()
            self._kinds[number] = kind
            return number, branch.space(trial) | self._fixed

    def _kind_of(self, given: Mapping[str, Any]) -> str:
        """What a proposal predicts, some of whose values are given: where its task is not, what the fewest trials have predicted."""
        for parameter in self._space.parameters:
            if parameter.path == "task" and "task" in given and isinstance(parameter.domain, Choice):
                return self._predicts({"task": next(one for one in parameter.domain.values if same(given["task"], as_optuna(one)))})
        taken = [*self._kinds.values()]
        return min(self._branches, key=taken.count)

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """Tell Optuna, once: a trial whose process died repeats epochs."""
        reported = self._reported.setdefault(number, set())
        if report["epoch"] not in reported:
            reported.add(report["epoch"])
            self._trials[number].report(report["score"], step=report["epoch"])

    def ended(self, number: int, last: Mapping[str, Any]) -> None:
        if not last.get("last", True):
            # Tune keeps the report to itself at which a trial is stopped.
            self.reported(number, last)
        trial, study = self._trials.pop(number), self._branches[self._kinds[number]].study
        self._reported.pop(number, None)
        if "score" not in last:
            memory = last.get("cause") == "memory"
            if memory:
                # TPE learns nothing from a failed trial, but from a violated constraint where not to look.
                trial.set_constraint(OUT_OF_MEMORY, 1.0)
            study.tell(trial, state=TrialState.PRUNED if memory else TrialState.FAIL)
        elif last["last"]:
            study.tell(trial, last["best"])
        else:
            study.tell(trial, state=TrialState.PRUNED)

    def _from_prior(self, number: int) -> dict[str, Any]:
        weights = 1 / np.arange(1, len(self._prior) + 2)
        chosen = generator(self._seed, "prior", number).choice(len(weights), p=weights / weights.sum())
        return self._prior[chosen] if chosen < len(self._prior) else {}

    @contextmanager
    def _sampling(self, study: optuna.Study, sampler: optuna.samplers.BaseSampler) -> Iterator[None]:
        """With a sampler; afterwards one that ignores how trials end, and does not warn."""
        plain, study.sampler = study.sampler, sampler
        try:
            yield
        finally:
            study.sampler = plain

    def _free_number(self) -> int:
        while self._next in self._taken:
            self._next += 1
        self._next += 1
        return self._next - 1

    def _fitting(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The drawn values; of a trial from another version of the space, those that still fit it."""
        return {path: value for path, value in self._space.drawn(values).items() if self._domains[path].holds(value)}

    def _teach(self, record: Record, drawn: Mapping[str, Any]) -> None:
        """Tell of a trial that has ended."""
        state = _optuna_state(record)
        if state is not None and (drawn or not self._domains):
            branch = self._branches[self._kinds[record.number]]
            branch.study.add_trial(_as_optuna(record, drawn, branch.domains, state))

    def _await(self, number: int, drawn: Mapping[str, Any], reports: Iterable[Mapping[str, Any]]) -> None:
        """Tell of a trial that will run again, as one that runs."""
        branch = self._branches[self._kinds[number]]
        branch.study.enqueue_trial({path: as_optuna(value) for path, value in drawn.items()})
        trial = self._trials[number] = branch.study.ask()
        for path in drawn:
            branch.domains[path].suggest(trial, path)
        for report in reports:
            self.reported(number, report)


def study_of(run: Folder) -> optuna.Study:
    """The trials of a run as a study of Optuna's in memory, by number, with their learning curves.

    Finished trials are complete, stopped and interrupted ones pruned; values that are not in the run's space any more are left out. The
    trial's number in the run is its attribute `number`.
    Raises: RunError, SpaceError where run.json or space.yaml cannot be read.
    """
    card = read_run(run)
    with local_file(run / SPACE) as file:
        space = read_space(file)
    study = quiet_study(optuna.samplers.RandomSampler(), BY_NAME[card.metric], name=card.name)
    study.add_trials(frozen_trials(read_records(run), space))
    return study


def frozen_trials(records: Iterable[Record], space: Space) -> Iterator[optuna.trial.FrozenTrial]:
    """Trials as `study_of` has them."""
    domains = {parameter.path: parameter.domain for parameter in space.parameters}
    for record in records:
        drawn = {path: value for path, value in space.drawn(record.config.values()).items() if domains[path].holds(value)}
        trial = _as_optuna(record, drawn, domains, _optuna_state(record) or TrialState.FAIL)
        trial.set_user_attr("number", record.number)
        yield trial


def _as_optuna(record: Record, drawn: Mapping[str, Any], domains: Mapping[str, Domain], state: TrialState) -> optuna.trial.FrozenTrial:
    trial = create_trial(
        state=state,
        value=record.best["score"] if state is TrialState.COMPLETE else None,
        params={path: as_optuna(value) for path, value in drawn.items()},
        distributions={path: distribution(domains[path]) for path in drawn},
        intermediate_values={report["epoch"]: report["score"] for report in record.reports},
    )
    if record.result.cause == "memory":
        trial.set_constraint(OUT_OF_MEMORY, 1.0)
    return trial


def _for_optuna(values: Mapping[str, Any]) -> dict[str, Any]:
    return {path: as_optuna(value) for path, value in values.items()}


def _optuna_state(record: Record) -> TrialState | None:
    match record.result.state:
        case "finished":
            return TrialState.COMPLETE
        case "failed":
            return TrialState.PRUNED if record.result.cause == "memory" else TrialState.FAIL
        case _:
            # Also of a trial that was interrupted and will not be resumed, what it reached is known.
            return TrialState.PRUNED if record.reports else None


def _untried(starts: Iterable[dict[str, Any]], tried: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The start entries left over when each trial, in order, stands for the first entry that it fits."""
    left = list(tried)
    for start in starts:
        place = next((place for place, values in enumerate(left) if _is_start(start, values)), None)
        if place is None:
            yield start
        else:
            del left[place]


def _is_start(start: Mapping[str, Any], drawn: Mapping[str, Any]) -> bool:
    return all(path in drawn and same(value, as_optuna(drawn[path])) for path, value in start.items())

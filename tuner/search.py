"""The searcher: Optuna's TPE behind Ray Tune's interface, told the truth about how trials end."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from search_spaces.schema import Choice, Domain, Int, Space, as_optuna, same
from trainables.record import Cause, Record
from trainables.seeding import seed_for

OUT_OF_MEMORY = "memory"  # the constraint's name; above 0 is a violation


def random_draws(space: Space, fixed: dict[str, Any], *, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Nested values of configurations drawn at random, those of the space's `start` first."""
    study = _quiet_study(optuna.samplers.RandomSampler(seed=seed))
    for start in space.start_trials():
        study.enqueue_trial(start)
    for _ in range(count):
        yield space(study.ask()) | fixed


class OptunaSearcher(Searcher):
    """Proposes configurations by multivariate TPE, modelling each branch of a conditional space by itself.

    Ray's own OptunaSearch tells Optuna that a trial which ASHA stopped is complete, and leaves failed ones running for ever; here a
    finished trial counts with its best epoch, a stopped one as pruned with what it reached, one that did not fit the GPU as a violated
    constraint, any other failed one as failed.

    What trial n is to be follows from the seed, n, and the trials before it alone, so a search that goes on from its records proposes
    what the uninterrupted one would have.

    Source: Watanabe, Tree-Structured Parzen Estimator, 2023 (arXiv 2304.11127); Bergstra et al., NeurIPS 2011.
    """

    def __init__(
        self,
        space: Space,
        fixed: dict[str, Any],
        *,
        seed: int,
        trials: int,
        slots: Callable[[], int],
        stopping: Callable[[], bool] = lambda: False,
        earlier: Iterable[Record] = (),
        going_on: Mapping[int, dict[str, Any]] | None = None,
    ):
        """
        Args:
            fixed: values that the run adds to every configuration (epochs, seed).
            trials: planned number; small searches start modelling after fewer random trials than Optuna's 10.
            slots: trials that may run at a time; none is proposed ahead, so each proposal knows all that ended before it starts.
            stopping: whether the search is coming to its end, so that no more trials should begin.
            earlier: trials of this run that have ended, to learn from.
            going_on: nested values, by number, of trials that were interrupted; they are proposed first.
        """
        super().__init__(metric="score", mode="max")
        self._space = space
        self._fixed = fixed
        self._seed = seed
        self._startup = min(10, max(4, trials // 3))
        self._slots = slots
        self._stopping = stopping
        self._study = _quiet_study(optuna.samplers.RandomSampler())
        self._running: dict[str, optuna.Trial] = {}
        self._going_on = deque(sorted((going_on or {}).items()))
        known = list(earlier)
        for record in known:
            if taught := _as_optuna_trial(record, space):
                self._study.add_trial(taught)
        tried = sorted([*((record.number, record.config.values()) for record in known), *self._going_on], key=lambda pair: pair[0])
        self._start = deque(_untried(space.start_trials(), [space.drawn(values) for _, values in tried]))
        self._taken = {record.number for record in known} | {number for number, _ in self._going_on}
        self._next = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._stopping():
            return Searcher.FINISHED
        if len(self._running) >= self._slots():
            return None
        number, values = self._going_on.popleft() if self._going_on else (self._free_number(), None)
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed_for(self._seed, "proposal", number) % 2**32,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=self._startup,
        )
        if values is not None:
            self._study.enqueue_trial({path: as_optuna(value) for path, value in self._space.drawn(values).items()})
        elif self._start:
            self._study.enqueue_trial(self._start.popleft())
        trial = self._study.ask()
        self._running[trial_id] = trial
        drawn = self._space(trial) | self._fixed
        return {"number": number, "values": drawn if values is None else values}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "score" in result:
            self._running[trial_id].report(result["score"], step=result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._running.pop(trial_id)
        result = result or {}
        if error or "score" not in result:
            _tell_failure(self._study, trial, result.get("cause", "crash"))
            return
        if result["last"]:
            self._study.tell(trial, result["best"])
            return
        # Tune keeps the report to itself at which a trial is stopped.
        trial.report(result["score"], step=result["epoch"])
        self._study.tell(trial, state=TrialState.PRUNED)

    def _free_number(self) -> int:
        while self._next in self._taken:
            self._next += 1
        self._next += 1
        return self._next - 1

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the truth, and the study is made from them."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read, see `save`."""


def _tell_failure(study: optuna.Study, trial: optuna.Trial, cause: Cause) -> None:
    if cause == "memory":
        # TPE learns nothing from a failed trial, but from a violated constraint where not to look.
        trial.set_constraint(OUT_OF_MEMORY, 1.0)
    study.tell(trial, state=TrialState.PRUNED if cause == "memory" else TrialState.FAIL)


def _as_optuna_trial(record: Record, space: Space) -> FrozenTrial | None:
    """What Optuna would know of an earlier trial; of one from another version of the space, the values that still fit it."""
    domains = {parameter.path: parameter.domain for parameter in space.parameters}
    drawn = {path: value for path, value in space.drawn(record.config.values()).items() if domains[path].holds(value)}
    state = _optuna_state(record)
    if state is None or (domains and not drawn):
        return None
    taught = create_trial(
        state=state,
        value=record.best["score"] if state is TrialState.COMPLETE else None,
        params={path: as_optuna(value) for path, value in drawn.items()},
        distributions={path: _distribution(domains[path]) for path in drawn},
        intermediate_values={report["epoch"]: report["score"] for report in record.reports},
    )
    if record.result.cause == "memory":
        taught.set_constraint(OUT_OF_MEMORY, 1.0)
    return taught


def _optuna_state(record: Record) -> TrialState | None:
    match record.result.state:
        case "finished":
            return TrialState.COMPLETE
        case "failed":
            return TrialState.PRUNED if record.result.cause == "memory" else TrialState.FAIL
        case _:
            # Also of a trial that was interrupted and will not go on, what it reached is known.
            return TrialState.PRUNED if record.reports else None


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution([as_optuna(value) for value in domain.values])
    kind = IntDistribution if isinstance(domain, Int) else FloatDistribution
    return kind(domain.low, domain.high, log=domain.log, step=domain.step or (1 if isinstance(domain, Int) else None))


def _untried(starts: Iterable[Mapping[str, Any]], tried: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
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


def _quiet_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=sampler)

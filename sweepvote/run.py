"""A search from Python, and the run that it leaves: what `sweepvote search`, `resume`, `vote` and `report` do, with values beside text.

Each function does what its command does, with the same messages; what a command tells with exit code 2 is a `UserError` here. A long
search shows its table while it runs; Ctrl-C (a notebook's stop button) ends it softly, and the run that is returned can be resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from search_spaces.schema import show
from sweepvote.vote import Vote
from trainables.console import output
from trainables.extensions import trusting
from trainables.record import RunCard, RunError, find_run, open_run, read_run
from trainables.registry import nearest
from trainables.storage import Folder
from tuner.cli import Options, ray_starter, seconds, trial_count

if TYPE_CHECKING:
    import optuna
    import pandas as pd

Space = str | PathLike | Mapping[str, Any]

LEAST: dict[str, tuple[type, int]] = {"seed": (int, 0), "cpus_per_trial": (int, 1), "gpus_per_trial": (float, 0)}


@dataclass(frozen=True)
class Run:
    """A search on disk; everything is read when it is asked for, so a run that is being searched may be looked at, too."""

    folder: Folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def card(self) -> RunCard:
        """What all its trials share: space, data, seed, metric. Raises: UserError."""
        return read_run(self.folder)

    @property
    def trials(self) -> "pd.DataFrame":
        """One row a trial, by number: state, score on validation, epochs, seconds, and a column for each setting that varies."""
        from analysis.evaluation.search.reading import read_search
        from analysis.evaluation.search.table import trials_table

        return trials_table(read_search(self.folder))

    @property
    def summary(self) -> dict[str, Any]:
        """How it stands: trials by state, the best, the baseline and the answer, where they are; also in its summary.json."""
        from analysis.evaluation.search.summary import summary_of

        return summary_of(self.folder)

    @property
    def study(self) -> "optuna.Study":
        """Its trials as a study of Optuna's, for Optuna's plots and importances."""
        from tuner.searchers.study import study_of

        return study_of(self.folder)

    def vote(
        self, top: int | None = None, *, vote: str = "auto", members: str | Sequence[str] = (), safe: bool = False, seed: int = 0
    ) -> Vote:
        """Let its best trials vote, and measure on the hold-out what the vote is worth: `sweepvote vote`.

        Args:
            top: how many members may vote; 3 where nothing is given.
            vote: the kind of vote; auto takes what is best on validation.
            members: who votes in place of the best, such as `["faces/0", "faces/3"]`.
            safe: whether a vote answers only if it is significantly better than the best single model.
            seed: of the bootstrap behind every interval.
        Raises: UserError.
        """
        from analysis.ensemble.__main__ import ensemble
        from analysis.ensemble.member_options import read_member_options
        from analysis.evaluation.decide import Options as Asked

        named = members if isinstance(members, str) else ",".join(members)
        options = Asked(read_member_options(top, named, False, "", False), vote=vote, safe=safe, seed=seed)
        ensemble([str(self.folder)], options, details=False)
        return Vote(self.folder / "ensemble")

    def resume(self, trials: int | str | None = None, time_budget: float | str | None = None, **options: Any) -> "Run":
        """Go on after an interruption, or with more trials: `run.resume(trials="+20")`.

        Args:
            options: as those of `search`.
        Raises: UserError.
        """
        return _searched(_options(trials=trials, time_budget=time_budget, **options), resume=str(self.folder))

    def enqueue(self, settings: Mapping[str, Any], by: str = "") -> str:
        """Propose a configuration, `{"optimizer/lr": 0.01}`, what is left out to be drawn: `sweepvote enqueue`. Returns when it is tried.

        Args:
            by: who proposes it, for the record.
        Raises: UserError with everything that the run's space cannot draw.
        """
        from tuner.requests import enqueue

        return enqueue(str(self.folder), settings, by)[1]

    def stop(self, trial: int | None = None) -> None:
        """Ask that its search be stopped softly, or one of its trials: `sweepvote stop`. Raises: UserError where it does not run."""
        from tuner.requests import stop

        stop(str(self.folder), trial)

    def spare(self, trial: int) -> None:
        """Ask that a trial be pruned no more: `sweepvote spare`. Raises: UserError where it does not run."""
        from tuner.requests import spare

        spare(str(self.folder), trial)

    def report(self) -> Folder:
        """Write one page with the answer, the search, what each setting gave and where it errs, and return its file."""
        from analysis.report.__main__ import make_report

        make_report([str(self.folder)])
        return self.folder / "report" / "index.html"


def search(
    space: Space,
    data: str | PathLike | None = None,
    *,
    trials: int | None = None,
    time_budget: float | str | None = None,
    metric: str | None = None,
    name: str | None = None,
    **options: Any,
) -> Run:
    """Search a space for the best models, on all cores and GPUs: `sweepvote search`.

    Args:
        space: the name of a shipped space (`"effnet"`), a YAML file, or a dict of what such a file holds (see `choice`, `float`, `int`).
        data: a folder with one folder per class, a table, or a folder with a table, or its address; None draws images, for a demo.
        trials: how many configurations; the space's, or 20, where nothing is given.
        time_budget: seconds, or text such as "20m", "2h".
        metric: by which trials and votes are chosen, such as "balanced_accuracy"; by the kind of target where nothing is given.
        name: of the run; by default the space's and a number.
        options: the other options of the command by their names: `target`, `tags`, `number`, `group`, `layout`, `label_pattern` (of the
            data), `searcher`, `pruner`, `seed`, `storage`, `keep`, `finalists`, `answer`, `retries`, `gpus_per_trial`, `cpus_per_trial`,
            `address`, `dashboard`, `watch`, `allow_bad_images`, and `changes`: settings by path, such as `{"run/epochs": 3}`.
    Raises: UserError, which says all that is wrong, where and how to fix it; nothing was written then. TypeError for an unknown option.
    """
    given = space if isinstance(space, Mapping) else str(space)
    asked = _options(trials=trials, time_budget=time_budget, metric=metric, **options)
    called = f"sweepvote.search({given!r}, {'' if data is None else f'data={str(data)!r}, '}...)"
    return _searched(asked, space=given, data=None if data is None else str(data), name=name, called=called)


def load(run: str | PathLike, *, trust_code: bool = False) -> Run:
    """A run by its name in ./runs, its folder or its address.

    Args:
        trust_code: whether extensions (Python code) that come with the run are executed though they never ran here.
    Raises: RunError listing the runs that there are; ExtensionError naming code that never ran here.
    """
    folder = find_run(str(run))
    with trusting(trust_code):
        open_run(folder)
    return Run(folder)


def _options(
    *,
    trials: int | str | None = None,
    time_budget: float | str | None = None,
    changes: Mapping[str, Any] | None = None,
    dashboard: bool = False,
    **others: Any,
) -> Options:
    """What the command line would have made of these. Raises: RunError for what cannot be read, TypeError for an unknown option."""
    from tuner.run import OF_DATA, OF_RUN

    short = {f"run/{name}": others.pop(name) for name in OF_RUN if name in others}
    short |= {f"data/{name}": others.pop(name) for name in OF_DATA if name in others}
    known = [field.name for field in fields(Options) if field.name not in ("space", "resume", "called", "dry_run")]
    for name in others:
        if name not in known:
            raise TypeError(f"there is no option {name!r}{nearest(name, [*known, *OF_RUN, *OF_DATA])}")
    _refuse_outside(others)
    changed = {path: value for path, value in (short | dict(changes or {})).items() if value is not None}
    return Options(
        trials=_read(trial_count, "trials", trials),
        time_budget=_read(seconds, "time_budget", time_budget),
        changes=tuple(f"{path}={show(value)}" for path, value in changed.items()),
        dashboard=dashboard,
        **others,
    )


def _refuse_outside(values: Mapping[str, Any]) -> None:
    """Raises: RunError for every number below the least that the command line takes."""
    mistakes = [
        f"{name}: {values[name]!r} is not {'an integer' if kind is int else 'a number'} >= {least}"
        for name, (kind, least) in LEAST.items()
        if values.get(name) is not None
        and (isinstance(values[name], bool) or not isinstance(values[name], (int, kind)) or values[name] < least)
    ]
    if mistakes:
        raise RunError("\n".join(mistakes))


def _read(parser: Any, name: str, value: Any) -> Any:
    from typer import BadParameter

    try:
        return None if value is None else parser(str(value))
    except BadParameter as error:
        raise RunError(f"{name}: {error.message}") from None


def _searched(options: Options, **asked: Any) -> Run:
    from tuner.searching import search as carry_out

    folders: list[Folder] = []
    options = replace(options, **asked)
    with ray_starter(options.address, dashboard=options.dashboard) as start:
        carry_out(options, output(), start, claimed=folders.append)
    return Run(folders[0])

"""The folder of a run: a new one is named, made and held in one go; an earlier one is opened as it was left (its trials: resume.py)."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from search_spaces.read import read_space
from search_spaces.schema import Space, SpaceError, nested, show
from trainables.commands import typed
from trainables.config import choosers
from trainables.data.settings import BEFORE, DataConfig
from trainables.extensions import Extension, loaded
from trainables.metrics import AUTO, BY_NAME, metric_of
from trainables.metrics.asked import with_costs
from trainables.record import IN, SPACE, RunCard, RunError, find_run, name_of, open_run, searched_run
from trainables.storage import Folder, local_file, reach, remove_tree
from tuner.lock import LOCK, hold

LONGEST = 200  # bytes of a run's name; file systems take 255


@dataclass(frozen=True)
class Earlier:
    """A run as it was left."""

    run: Folder
    card: RunCard
    space: Space | None  # the one in effect; None where its file is missing
    extensions: tuple[Extension, ...] = ()  # its copies, which this process has executed


def open_earlier(name: str) -> Earlier:
    """The run to resume. Raises: RunError when it does not exist or its run.json is damaged; ExtensionError, see `open_run`."""
    run = find_run(name)
    card = open_run(run)
    space = None
    if (run / SPACE).is_file():
        try:
            with local_file(run / SPACE) as file:
                space = with_cuts(replace(read_space(file, choosers=choosers()), name=card.space), card)
                space = replace(space, fixed=_paths(BEFORE) | dict(space.fixed))
        except SpaceError as error:
            raise RunError(f"{run}/{SPACE} cannot be read:\n{error}\nFix it, or give --space") from None
    return Earlier(run, card, space, loaded(card.extensions))


def with_cuts(space: Space, card: RunCard) -> Space:
    """The space with the cuts that a run began with, where it names none: the same ones were once everybody's default."""
    return replace(space, fixed={"data/cuts": list(card.cuts), **space.fixed}) if card.cuts else space


def with_data_of(space: Space, earlier: Earlier) -> Space:
    """The space with the settings of how data is read that the run began with, where it names none."""
    own = earlier.space.fixed if earlier.space else _paths(BEFORE)
    kept = {path: own[path] for path in _paths(BEFORE) if path in own}
    return with_cuts(replace(space, fixed=kept | dict(space.fixed)), earlier.card)


def explicit(space: Space) -> Space:
    """The space with the settings of how data is read written out: a run without them began before there were any."""
    today = DataConfig().model_dump(mode="json")
    return replace(space, fixed={path: today[name] for name, path in zip(BEFORE, _paths(BEFORE), strict=True)} | dict(space.fixed))


def _paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data/{name}": value for name, value in settings.items()}


def refuse_changes(card: RunCard, before: Space | None, space: Space, seed: int | None) -> None:
    """Raises: RunError naming everything about which old and new trials would not agree."""
    mistakes = []
    metric = with_costs(space.run.get("metric", AUTO), space.run.get("costs", {}))
    known = metric == AUTO or metric in BY_NAME
    metric = metric_of(metric, card.predicted).name if known else metric
    if card.metric != metric:
        mistakes.append(f"run/metric was {card.metric} and would be {metric}: the scores cannot be compared")
    if seed not in (None, card.seed):
        mistakes.append(f"--seed is {seed}, but the run's seed is {card.seed}: remove --seed")
    if before is not None:
        was, would_be = (DataConfig(**nested(one.fixed).get("data", {})).model_dump(mode="json") for one in (before, space))
        other = "the split or the classes would change"
        mistakes += [
            f"data/{name} was {show(was[name])} and would be {show(would_be[name])}: {other}" for name in was if was[name] != would_be[name]
        ]
    refuse(card, mistakes)


def refuse(card: RunCard, mistakes: list[str]) -> None:
    """Raises: RunError with all mistakes, where there are some."""
    if mistakes:
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise RunError(f"run {card.name} cannot be resumed with these changes:\n{listed}\nStart a new run for them.")


def resume_command(run: Folder, module: str = "tuner.run") -> str:
    """The command that resumes a run."""
    return typed(f"{module} --resume {name_of(run)}")


def race_command(run: Folder) -> str:
    """The command that races a search's finalists, or resumes that."""
    return typed(f"tuner.race --run {name_of(run)}")


def resume_refits(run: Folder, card: RunCard) -> str:
    """The command that resumes a run of refits; finalists are those of the search that they are in."""
    return race_command(run.parent) if card.refit_of == IN else resume_command(run, "tuner.refit")


def refuse_refit(run: Folder, card: RunCard) -> None:
    """Raises: RunError for a run of refits, where a search is asked for."""
    if card.refit_of:
        searched = searched_run(run, card)
        which = f"{card.name} holds refits of {searched.name}, not a search; give the search: --run {name_of(searched)}"
        raise RunError(f"{which}, or resume the refits: {resume_refits(run, card)}")


def vote_command(run: Folder, trials: int) -> str:
    """The command that makes an ensemble of a run's best trials."""
    return typed(f"analysis.ensemble --top {min(3, trials)} --run {name_of(run)}")


# New runs


def numbered(stem: str, first: str) -> Iterator[str]:
    """Names without an end: the first one, then the stem with 2, 3, ... behind it."""
    yield first
    yield from (f"{stem}-{number}" for number in count(2))


def choose_folder(runs: Folder, wanted: str | None, names: Iterable[str]) -> Folder:
    """The folder that a new run will have below `runs`, which can be written to.

    Args:
        wanted: its name; None takes the first of `names` that is free.
    Raises: RunError for a name that is taken or is no plain folder name, StorageError.
    """
    # A dash first would make an option of the name wherever it is typed.
    if wanted is not None and (Path(wanted).name != wanted or wanted[:1] in ("", ".", "-") or len(wanted.encode()) > LONGEST):
        raise RunError(
            f"--name {wanted!r} is not a plain folder name; use letters, digits and, but for the first, dashes: at most {LONGEST}"
        )
    reach(runs)
    if wanted is None:
        return next(folder for name in names if not (folder := runs / name).exists())
    if (runs / wanted).exists():
        _refuse_taken(runs / wanted)
    return runs / wanted


@contextmanager
def claim(runs: Folder, wanted: str | None, names: Iterable[str]) -> Iterator[Folder]:
    """The folder of a new run, made and kept from others until the end of the block; it goes again unless it has become a run.

    Args:
        wanted: its name; None takes the first of `names` that is free, and the next where another command is quicker.
    Raises: RunError for a name that is taken or is no plain folder name, StorageError.
    """
    with ExitStack() as stack:
        run = _taken(stack, runs, wanted, names)
        try:
            yield run
        finally:
            if all(entry.name == LOCK for entry in run.iterdir()):
                remove_tree(run)


def _taken(stack: ExitStack, runs: Folder, wanted: str | None, names: Iterable[str]) -> Folder:
    names = iter(names)
    while True:
        run = choose_folder(runs, wanted, names)
        try:
            run.mkdir(parents=True, exist_ok=wanted is not None)
            stack.enter_context(hold(run))
            _refuse_taken(run)
            return run
        except FileExistsError:
            continue
        except RunError:
            # In an object store a folder is there when its lock is, and another command's may have come first.
            if wanted is not None or isinstance(run, Path):
                raise


def _refuse_taken(run: Folder) -> None:
    """Raises: RunError for a folder that is there already; one whose command died before it was a run may be used."""
    if not (run / LOCK).is_file() or any((run / name).exists() for name in ("run.json", "trials")):
        raise RunError(f"{run} exists already; choose another --name, resume it with --resume {run.name}, or remove it")

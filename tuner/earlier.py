"""A run as it was left, how it is called, and what may not change when it is resumed. Its trials are looked at in resume.py."""

from dataclasses import dataclass, replace

from search_spaces.read import read_space
from search_spaces.schema import Space, SpaceError, nested, show
from trainables.config import choosers
from trainables.data.settings import DataConfig
from trainables.metrics import DEFAULT
from trainables.record import SPACE, RunCard, RunError, find_run, name_of, read_run
from trainables.storage import Folder, local_file


@dataclass(frozen=True)
class Earlier:
    """A run as it was left."""

    run: Folder
    card: RunCard
    space: Space | None  # the one in effect; None where its file is gone


def open_run(name: str) -> Earlier:
    """The run to go on with. Raises: RunError when it does not exist or its run.json is damaged."""
    run = find_run(name)
    card = read_run(run)
    space = None
    if (run / SPACE).is_file():
        try:
            with local_file(run / SPACE) as file:
                space = with_cuts(replace(read_space(file, choosers=choosers()), name=card.space), card)
        except SpaceError as error:
            raise RunError(f"{run}/{SPACE} cannot be read:\n{error}\nMend it, or give --space") from None
    return Earlier(run, card, space)


def with_cuts(space: Space, card: RunCard) -> Space:
    """The space with the cuts that a run began with, where it names none: the same ones were once everybody's default."""
    return replace(space, fixed={"data/cuts": list(card.cuts), **space.fixed}) if card.cuts else space


def refuse_changes(card: RunCard, before: Space | None, space: Space, seed: int | None) -> None:
    """Raises: RunError naming everything about which old and new trials would not agree."""
    mistakes = []
    metric = space.run.get("metric", DEFAULT)
    if card.metric != metric:
        mistakes.append(f"run/metric was {card.metric} and would be {metric}: the scores cannot be compared")
    if seed not in (None, card.seed):
        mistakes.append(f"its seed is {card.seed}, not {seed}: leave --seed out")
    if before is not None:
        was, would_be = (DataConfig(**nested(one.fixed).get("data", {})).model_dump(mode="json") for one in (before, space))
        other = "the people would be parted, or the classes cut, in another way"
        mistakes += [
            f"data/{name} was {show(was[name])} and would be {show(would_be[name])}: {other}" for name in was if was[name] != would_be[name]
        ]
    refuse(card, mistakes)


def refuse(card: RunCard, mistakes: list[str]) -> None:
    """Raises: RunError with all mistakes, where there are some."""
    if mistakes:
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise RunError(f"run {card.name} cannot go on like this:\n{listed}\nStart a new run for that.")


def resume_command(run: Folder, module: str = "tuner.run") -> str:
    """What goes on with a run."""
    return f"python -m {module} --resume {name_of(run)}"


def vote_command(run: Folder, trials: int) -> str:
    """What lets the best of a run's trials vote."""
    return f"python -m analysis.ensemble --top {min(3, trials)} --run {name_of(run)}"

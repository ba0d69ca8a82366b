"""The finalists of a search are raced: chosen, trained fold by fold on Ray, summed up. Their run is in the folder of the search."""

import math
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.evaluation.search.summary import write_summary
from trainables.config import TrialConfig
from trainables.console import document
from trainables.data.training import Data
from trainables.metrics import BY_NAME
from trainables.record import (
    FINALISTS,
    Record,
    RunCard,
    find_run,
    open_run,
    read_predictions,
    read_record,
    read_records,
    read_run,
    trial_folder,
)
from trainables.restore_data import read_folds
from trainables.storage import Folder
from trainables.validation import pooled_score
from tuner.cli import Options, Start
from tuner.finalists import Race, choose_finalists, plan_race
from tuner.lock import hold, show_lock
from tuner.prepare import Plan, with_shares_of
from tuner.refits import card_of, read_refits, show_chosen
from tuner.refitting import Refits, train_refits
from tuner.runs import refuse_refit, resume_refits, vote_command

# Ray takes seconds, and mistakes are reported without it.
if TYPE_CHECKING:
    from ray.tune.search import Searcher

    from tuner.board import Board
    from tuner.cluster import Slots
    from tuner.resume import Stock
    from tuner.stoppers.soft_stop import SoftStop


DEFAULT = 4  # finalists


def race(name: str, options: Options, console: Console, start: Start) -> int:
    """Run the command and return its exit code.

    Args:
        name: of the search. How many finalists are raced the options say; None: as many as there are, or DEFAULT.
        start: begins to start Ray.
    Raises: RunError, DataError, SpaceError, ConfigError, StorageError for what the user can fix. No record is touched then.
    """
    run = find_run(name)
    card = open_run(run)
    refuse_refit(run, card)
    show_lock(run, console)
    with hold(run):
        code = race_held(run, card, options.finalists, with_shares_of(card, options), console, start)
        document(write_summary(run))
        return code


def race_held(
    run: Folder,
    card: RunCard,
    number: int | None,
    options: Options,
    console: Console,
    start: Start,
    *,
    after: Callable[[int], float] = lambda finalists: 0.0,
    known_images: bool = False,
) -> int:
    """The same for a run that this process holds: begin its race, resume it, or add finalists that a longer search has found.

    Args:
        after: seconds of the time budget that are wanted after the race of so many finalists.
        known_images: whether this command has told of the images before.
    """
    began = perf_counter()
    place = run / FINALISTS
    there = (place / "run.json").is_file()
    own = read_run(place) if there else card
    trials = read_refits(place, own) if there else []
    known = {refit.origin.trial for refit in trials}
    finalists = choose_finalists(read_records(run), card, BY_NAME[card.metric], number or len(known) or DEFAULT)
    added = [record for record in finalists if record.number not in known]
    trials += plan_race(added, read_folds(run)) if added else []
    own = replace(card_of(card, place, run, trials), name=f"{card.name}/{FINALISTS}")
    if known:
        also = f", with {len(added)} more" if added else ""
        console.print(Text.assemble((card.name, "bold"), f": resuming the race of {len(known)} finalists{also}"))
    else:
        show_chosen(own, run, finalists, trials, console)
    deadline = None if options.time_budget is None else monotonic() + options.time_budget

    def staged(refits: Refits, data: Data, stock: "Stock", slots: "Slots", stopping: Callable[[], bool]) -> "Searcher":
        """What proposes the refits fold by fold, without the finalists that are out."""
        from tuner.searchers.staged import StagedSearcher

        def left() -> float:
            return math.inf if deadline is None else deadline - monotonic()

        race = Race(refits.run, refits.card, refits.trials, data, searched=run, slots=slots, left=left, after=after)
        return StagedSearcher(stock.proposals, slots=slots, stopping=stopping, stages=race.stages, close=race.close, alone=race.alone)

    return train_refits(
        Refits(place, run, own, trials),
        options,
        console,
        start,
        began,
        searcher=staged,
        summarize=summarize,
        known=known_images,
    )


def is_over(run: Folder, card: RunCard, number: int) -> bool:
    """Whether a search has been raced, and there is nothing to add."""
    place = run / FINALISTS
    if not (place / "run.json").is_file():
        return False
    known = {origin.trial for origin in read_run(place).origins}
    chosen = {record.number for record in choose_finalists(read_records(run), card, BY_NAME[card.metric], number)}
    return chosen <= known and all(record.result.state != "interrupted" for record in read_records(place))


def summarize(refits: Refits, plan: Plan, data: Data, board: "Board", seconds: float, soft_stop: "SoftStop", console: Console) -> None:
    """How each finalist did over all folds, what it cost, and what to do next."""
    from tuner.summary import show_end

    run, searched = refits.run, refits.searched
    records = read_records(run)
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(refits.card.origins[record.number].trial, []).append(record)
    metric = plan.settings.score()

    def predicts(config: TrialConfig) -> str:
        return plan.predicts(config.values())

    rows = []
    for trial, group in groups.items():
        origin = read_record(trial_folder(searched, trial))
        done = [one for one in group if one.result.state == "finished"]
        if all(one.config.data.fold != origin.config.data.fold for one in done):
            done = [origin, *done]
        score, (low, high) = pooled_score([(one.config, read_predictions(one.folder)) for one in done], data.images, data.split)
        left = next((one.result.reason for one in group if one.result.state in ("stopped", "failed")), "")
        outcome = left or ("one model a fold" if all(one.result.state == "finished" for one in group) else "not done yet")
        backbone = origin.config.model.backbone
        if len({predicts(one.config) for one in records}) > 1:
            backbone = f"{predicts(origin.config)}: {backbone}"
        rows.append(
            (bool(left), -metric.sign * score, [str(trial), backbone, str(len(done)), f"{score:.3f}", f"{low:.3f} - {high:.3f}", outcome])
        )
    title = f"Finalists of {searched.name}, by {metric.title} ({', '.join(plan.targets)}) on the folds that each was validated on"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("trial", "backbone", "folds", metric.title, "95 % CI"):
        table.add_column(column, justify="left" if column == "backbone" else "right")
    table.add_column("outcome", overflow="fold")
    for *_, row in sorted(rows):
        table.add_row(*row)
    console.print()
    console.print(table)
    show_end(plan, records, board, seconds, soft_stop, resume_refits(run, refits.card), console)
    if left := sum(not out for out, *_ in rows):
        console.print(Text.assemble("Next: ", (vote_command(searched, left), "bold")), soft_wrap=True)

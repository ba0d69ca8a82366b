"""The refits of a search are trained: chosen, prepared as a search is, run on Ray, summed up.

Every trial is laid out before the first one is trained, so the records say what is left to do, whenever the command is ended.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from analysis.evaluation.search.summary import write_summary
from trainables.console import document, open_console
from trainables.data.layouts.reading import read_images
from trainables.data.training import Data
from trainables.data.views import View
from trainables.extensions import hashes, loaded, write_copies
from trainables.mirror import original
from trainables.progress import waiting
from trainables.record import IN, SPLIT, TEACHER, RunCard, RunError, find_run, open_run, searched_run, write_run
from trainables.restore_data import EXTRA, read_folds, read_teacher
from trainables.storage import Folder, open_folder, write_atomically
from tuner.cli import Options, Start
from tuner.lock import hold, show_lock
from tuner.prepare import Plan, data_folder, prepare, with_shares_of
from tuner.refits import Refit, RefitOptions, card_of, choose, lay_out, plan_refits, read_refits, refuse_options, show_chosen, space_of
from tuner.runs import Earlier, claim, numbered, resume_refits
from tuner.settings import RunSettings
from tuner.surroundings import gpus_here

# Ray takes seconds, and mistakes are reported without it.
if TYPE_CHECKING:
    from ray.tune.search import Searcher

    from tuner.board import Board
    from tuner.cluster import Slots
    from tuner.requests import Inbox
    from tuner.resume import Stock
    from tuner.stoppers.soft_stop import SoftStop


def refit(refit_options: RefitOptions, options: Options, console: Console, start: Start) -> int:
    """Run the command and return its exit code.

    Args:
        start: begins to start Ray.
    Raises: RunError, DataError, SpaceError, ConfigError, StorageError for what the user can fix. No record is touched then.
    """
    began = perf_counter()
    refuse_options(refit_options, options)
    with ExitStack() as stack:
        if options.resume:
            searched = run = find_run(options.resume)  # its split.csv is a copy
            card = open_run(run)
            if card.refit_of == IN:
                raise RunError(f"{run} holds finalists; resume them with: {resume_refits(run, card)}")
            show_lock(run, console)
            stack.enter_context(hold(run))
            refits = read_refits(run, card)
            options = with_shares_of(card, options)
            console.print(Text.assemble((card.name, "bold"), f": resuming {len(refits)} refits of {searched_run(run, card).name}"))
        else:
            searched = find_run(refit_options.run)
            card = open_run(searched)
            chosen = choose(searched, card, refit_options)
            refits = plan_refits(chosen, refit_options, read_folds(searched))
            runs, stem = open_folder(refit_options.storage) if refit_options.storage else searched.parent, f"{searched.name}-refit"
            show_lock(runs, console)
            run = stack.enter_context(claim(runs, options.name, numbered(stem, first=stem)))
            card = card_of(card, run, searched, refits)
            show_chosen(card, searched, chosen, refits, console)
        code = train_refits(Refits(run, searched, card, refits), options, console, start, began)
        document(write_summary(run))
        return code


@dataclass(frozen=True)
class Refits:
    """Trials that train configurations of a search again, in a run of their own."""

    run: Folder
    searched: Folder  # whose split they have, or where a copy of it is
    card: RunCard
    trials: Sequence[Refit]


def given(refits: Refits, data: Data, stock: "Stock", slots: "Slots", stopping: Callable[[], bool]) -> "Searcher":
    """What proposes every refit in turn."""
    from tuner.searchers.given import GivenSearcher

    return GivenSearcher(stock.proposals, slots=slots, stopping=stopping)


def train_refits(
    refits: Refits,
    options: Options,
    console: Console,
    start: Start,
    began: float,
    *,
    searcher: Callable[[Refits, Data, "Stock", "Slots", Callable[[], bool]], "Searcher"] = given,
    summarize: Callable[[Refits, Plan, Data, "Board", float, "SoftStop", Console], None] | None = None,
    known: bool = False,
) -> int:
    """Train the refits of a run that are not trained yet, sum up, and return the command's exit code.

    Args:
        searcher: proposes them; it gets the data whose fold validates first.
        summarize: None: every refit's score.
        known: whether this command has told of the images before.
    """
    run, searched, card = refits.run, refits.searched, refits.card
    plan = plan_refit(run, searched, card, refits.trials, options, console)
    join = start(None if options.address else gpus_here())
    # Images that the search left out, its refits leave out.
    material = prepare(plan, allow_bad=True, console=open_console(quiet=True) if known else console)
    shares = {"cpus_per_trial": options.cpus_per_trial, "gpus_per_trial": options.gpus_per_trial}
    card = replace(card, data=original(plan.folder), extensions=hashes(plan.extensions), **shares)
    refits = replace(refits, card=card)

    def write() -> None:
        for file in (SPLIT, EXTRA, TEACHER):
            if not (run / file).is_file() and (searched / file).is_file():
                write_atomically(run / file, (searched / file).read_bytes())
        write_copies(run, plan.extensions)
        lay_out(run, card, refits.trials)
        # Last: from here on it is a run, and all its trials are there.
        write_run(run, card)

    with waiting("importing Ray Tune"):
        from tuner.summary import summarize_refit
        from tuner.training import Work, train_and_sum_up

    def make(plan: Plan, slots: "Slots", stock: "Stock", stopping: Callable[[], bool], inbox: "Inbox") -> "Searcher":
        # Damaged records are quarantined by now; what takes their place is on disk before it is trained.
        lay_out(run, card, refits.trials)
        return searcher(refits, material.data, stock, slots, stopping)

    def sum_up(board: "Board", seconds: float, soft_stop: "SoftStop") -> None:
        if summarize:
            summarize(refits, plan, material.data, board, seconds, soft_stop, console)
        else:
            summarize_refit(plan, material.data, card, board, seconds, soft_stop, console)

    return train_and_sum_up(
        Work(
            plan,
            material,
            began,
            write=write,
            searcher=make,
            summarize=sum_up,
            resume=resume_refits(run, card),
            held=run.parent if card.refit_of == IN else run,
        ),
        options,
        join,
        console,
    )


def plan_refit(run: Folder, searched: Folder, card: RunCard, refits: Sequence[Refit], options: Options, console: Console) -> Plan:
    """Refits as a plan whose split is that of the search. Raises: RunError, DataError for what the user can fix."""
    configs = [refit.config for refit in refits]
    split_of = Earlier(searched, replace(card, name=searched.name), None)
    folder = data_folder(options, replace(split_of, card=card), console)
    images = read_images(folder, configs[0].data)
    retries: dict[str, Any] = {} if options.retries is None else {"retries": options.retries}
    settings = RunSettings(
        trials=len(refits),
        epochs=card.epochs,
        metric=card.metric,
        grace=card.epochs,  # nor is it measured how well early scores predict
        pruner="none",
        keep=len(refits),
        probe=False,
        finalists=0,
        **retries,
    )
    return Plan(
        run,
        replace(space_of(configs), file=searched.name),
        settings,
        seed=card.seed,
        fixed={},
        targets=card.predicts or images.scheme.names,
        configurations=[config.values() for config in {refit.origin: refit.config for refit in reversed(refits)}.values()],
        views=sorted({View.of(config.view) for config in configs}, key=str),
        folder=folder,
        images=images,
        split_of=split_of,
        extensions=loaded(card.extensions),
        teacher=read_teacher(searched, card),
    )

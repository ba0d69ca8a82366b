"""A whole search: check, prepare, run the trials on Ray, sum up."""

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.text import Text

from search_spaces.write import space_text
from trainables.console import document
from trainables.data.layouts.reading import read_unlabelled
from trainables.data.splits import Split, count_others, split_table
from trainables.extensions import FOLDER, hashes, write_copies
from trainables.mirror import original
from trainables.progress import waiting
from trainables.record import SPACE, SPLIT, RunCard, RunError, write_run
from trainables.restore_data import EXTRA
from trainables.storage import Folder, open_folder, write_atomically
from tuner import preflight
from tuner.budget import Division, predictions_of
from tuner.candidates import NOTHING, candidates
from tuner.cli import Options, Start
from tuner.lock import hold, show_lock
from tuner.prepare import (
    Material,
    Plan,
    has_overlay,
    load_extensions,
    plan_search,
    prepare,
    read_the_space,
    refuse_options,
    settings_of,
    with_shares_of,
)
from tuner.requests import forget_stops
from tuner.runs import Earlier, choose_folder, claim, numbered, open_earlier, refuse_changes, refuse_refit, resume_command
from tuner.surroundings import gpus_here
from tuner.understood import examples_sheet


def search(
    options: Options,
    console: Console,
    start: Start,
    *,
    probe_only: bool = False,
    claimed: Callable[[Folder], None] = lambda run: None,
    tell: Callable[[Mapping[str, Any]], None] = document,
) -> int:
    """Run the command and return its exit code.

    Args:
        start: begins to start Ray.
        claimed: is told the folder of the run before its first trial.
        tell: is given how the run stands at the end.
        probe_only: whether it ends when every backbone and view has been probed; a later command may go on with the search.
    Raises: SpaceError, ConfigError, DataError, RunError, StorageError for what the user can fix. No record is touched then.
    """
    began = perf_counter()
    refuse_options(options)
    with ExitStack() as stack:
        earlier = open_earlier(options.resume) if options.resume else None
        if earlier:
            refuse_refit(earlier.run, earlier.card)
            show_lock(earlier.run, console)
            stack.enter_context(hold(earlier.run))
            forget_stops(earlier.run)
            options = with_shares_of(earlier.card, options)
        join = start(None) if options.address and not options.dry_run else None
        gpus = join().gpus if join else gpus_here()
        plan = check(options, earlier, gpus, stack, console)
        claimed(plan.run)
        if options.watch and not options.dry_run:
            from tuner.watch.server import serving

            address = stack.enter_context(serving(plan.run)).address
            console.print(Text.assemble("Watch it at ", (address, "bold")), soft_wrap=True)
        if probe_only:
            probes = candidates(plan.space, plan.fixed)
            if not probes:
                raise RunError(f"{plan.space.name}: {NOTHING}, so there is nothing to probe; give some: --set model/weights=FILE")
            # Weights that cannot be had are left out there, and whatever else a trial may draw is not trained. What is wrong with texts
            # and their file is the user's mistake.
            texts = [one.values() for one in probes if one.model.is_zero_shot]
            plan = replace(plan, configurations=texts, settings=plan.settings.model_copy(update={"probe": True}))
        # Images that a run left out, it leaves out again: that these are the same images is verified.
        allow_bad = options.allow_bad_images or earlier is not None
        if options.dry_run:
            prepare(plan, allow_bad=allow_bad, console=console)
            if sheet := examples_sheet(plan.images, plan.folder.stem):
                console.print(Text(f"Examples of each class: {sheet}"), soft_wrap=True)
            valid = f"{preflight.DRAWS} configurations drawn, {len(plan.configurations)} trained for one step, all valid"
            console.print(f"Dry run: {valid}. Nothing was written.")
            counts = {"drawn": preflight.DRAWS, "trained for one step": len(plan.configurations)}
            document({"valid": True, **counts, "left out": list(plan.space.left_out)})
            return 0
        # All that can be checked without opening an image is valid: Ray starts while images are decoded and the preflight runs.
        join = join or start(gpus)
        material = prepare(plan, allow_bad=allow_bad, console=console)

        with waiting("importing Ray Tune"):
            from analysis.evaluation.search.summary import write_summary
            from tuner.gain import GainSoFar
            from tuner.summary import summarize, summarize_probes
            from tuner.training import Work, study_searcher, train_and_sum_up

        sum_up = summarize_probes if probe_only else summarize
        division = divide(plan, material.data.split, options.time_budget) if options.time_budget is not None and not probe_only else None
        if division and (words := division.words(perf_counter() - began)):
            console.print(words, highlight=False, soft_wrap=True)
        work = Work(
            plan,
            material,
            began,
            write=lambda: write_plan(plan, material, options),
            searcher=study_searcher,
            summarize=lambda board, seconds, soft_stop: sum_up(plan, material.data, board, seconds, soft_stop, console),
            resume=resume_command(plan.run),
            held=plan.run,
            gain=GainSoFar(plan, material.data),
            probe_only=probe_only,
            reserve=division.reserve if division else None,
        )
        code = train_and_sum_up(work, options, join, console)
        if not code and not probe_only and (plan.settings.finalists or plan.settings.answer):
            from tuner.conclusion import conclude

            code = conclude(plan, options, division, began, console, lambda gpus: join)
        tell(write_summary(plan.run))
        return code


def divide(plan: Plan, split: Split, budget: float) -> Division:
    """How a budget of so many seconds is divided between the search and what follows it."""
    unlabelled = read_unlabelled(plan.folder, plan.data_settings)
    others, folds = len(split.holdout) + (len(unlabelled.ids) if unlabelled else 0), count_others(split)
    predictions = predictions_of(len(split.valid), others, models=1)
    after_race = predictions_of(len(split.part) - len(split.holdout), others, models=folds + 1)
    return Division(budget, plan.settings.finalists, folds, predictions if plan.settings.answer else None, after_race)


def check(options: Options, earlier: Earlier | None, gpus: int, stack: ExitStack, console: Console) -> Plan:
    """All that can be checked before an image is opened, the cheapest first; the folder of a new run is taken.

    Args:
        stack: gives the folder back.
    Raises: SpaceError, ConfigError, DataError, RunError, StorageError for what the user can fix.
    """
    extensions = load_extensions(options, earlier)
    space = read_the_space(options, earlier, gpus > 0)
    settings = settings_of(options, space, earlier)
    if earlier:
        refuse_changes(earlier.card, earlier.space, space, options.seed)
        run = earlier.run
    else:
        stem = Path(space.name).stem
        place = open_folder(options.storage), options.name, numbered(stem, first=f"{stem}-1")
        if options.dry_run:
            run = choose_folder(*place)
        else:
            show_lock(place[0], console)
            run = stack.enter_context(claim(*place))
            forget_stops(run)
    verb = f"resuming {run.name}, " if earlier else ""
    console.print(Text.assemble((space.name, "bold"), f": {verb}{settings.trials} trials of at most {settings.epochs} epochs"))
    if options.space and not gpus and has_overlay(options.space):
        console.print("No GPU here: the space's on_cpu part is used (smaller nets, sizes, epochs).")
    for line in space.left_out:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return replace(plan_search(run, space, settings, options, earlier, console), extensions=extensions)


def write_plan(plan: Plan, material: Material, options: Options) -> None:
    """Write run.json, space.yaml, its extensions and, for a new run, split.csv and extra.csv."""
    run, split, earlier = plan.run, material.data.split, plan.split_of
    images = material.data.images
    if earlier is None:
        write_atomically(run / SPLIT, split_table(images, split, material.digests))
        if material.extra:
            write_atomically(run / EXTRA, material.extra)
    header = f"The space of {run.name} with all changes applied. To change it, copy it, edit the copy, and resume with:\n"
    space = plan.space.with_run(plan.settings.model_dump(exclude={"early_stopping"}))
    write_copies(run, plan.extensions)
    copies = [f"{FOLDER}/{one.name}" for one in plan.extensions]
    write_atomically(run / SPACE, space_text(space, f"{header}{resume_command(run)} --space <the copy>", copies).encode())
    write_run(
        run,
        RunCard(
            name=run.name,
            space=space.name,
            data=original(plan.folder),
            cuts=plan.data_settings.cuts,
            seed=plan.seed,
            split=split.hash,
            attributes=tuple(target.plain() for target in images.scheme.targets),
            epochs=plan.settings.epochs,
            trials=plan.settings.trials,
            command=earlier.card.command if earlier else options.called or shlex.join(["python", "-m", "tuner.run", *sys.argv[1:]]),
            predicts=plan.targets,
            metric=plan.settings.metric,
            also=plan.settings.also,
            cpus_per_trial=options.cpus_per_trial,
            gpus_per_trial=options.gpus_per_trial,
            extensions=hashes(plan.extensions),
            student_of=earlier.card.student_of if earlier else "",
            teacher=earlier.card.teacher if earlier else "",
            left_out=plan.space.left_out or (earlier.card.left_out if earlier else ()),
        ),
    )

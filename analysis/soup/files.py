"""The run of soups that the command leaves beside the first run."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import torch

from analysis.members.trials import Runs
from analysis.soup.outcome import Outcome
from trainables.card import Card
from trainables.checkpoint import load_model, pack_model
from trainables.extensions import hashes, loaded, write_copies
from trainables.metrics import accuracy_of, target_scores
from trainables.record import (
    MODEL,
    SPLIT,
    TEACHER,
    Predictions,
    Result,
    RunCard,
    start_record,
    trial_folder,
    write_predictions,
    write_reports,
    write_result,
    write_run,
)
from trainables.restore_data import EXTRA
from trainables.storage import Folder, local_file, write_atomically
from trainables.versions import code_version, device_name, versions


def write_soups(runs: Runs, outcomes: Sequence[Outcome], device: torch.device) -> Folder:
    """The kept soups as trials of a new run beside the first one; returns its folder.

    A soup has the settings of its best ingredient, which build its network, and one report; what it is made of stands in its result.
    """
    searched = runs.folders[0]
    run = new_folder(searched.resolve().parent, f"{searched.resolve().name}-soup")
    for file in (SPLIT, EXTRA, TEACHER):
        if (searched / file).is_file():
            write_atomically(run / file, (searched / file).read_bytes())
    for number, outcome in enumerate(outcomes):
        write_soup(trial_folder(run, number), outcome, runs, device)
    extensions = loaded(name for card in runs.cards for name in card.extensions)
    write_copies(run, extensions)
    # Last: from here on it is a run, and all its trials are there.
    write_run(run, replace(card_of(runs.cards[0], run.name, outcomes), extensions=hashes(extensions)))
    return run


def new_folder(runs: Folder, name: str) -> Folder:
    """A folder of this name, or with the first number behind it that is free; it is made at once, so that no other command takes it."""
    numbers = count(2)
    folder = runs / name
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            folder = runs / f"{name}-{next(numbers)}"


def write_soup(folder: Folder, outcome: Outcome, runs: Runs, device: torch.device) -> None:
    """The record of a group's kept soup."""
    soup, best = outcome.soups[outcome.kept], outcome.trials[0]
    config, epoch = best.record.config, best.record.best["epoch"]
    with local_file(best.models[0]) as file:
        model, _ = load_model(file)
    model.load_state_dict(soup.tensors)
    scheme = best.task.scheme
    truth = runs.valid.truth(scheme)
    report = {
        "epoch": epoch,
        "score": soup.score,
        "accuracy": accuracy_of(runs.metric, truth, soup.answer),
        "target_scores": target_scores(runs.metric, scheme, truth, soup.answer),
        "seconds": outcome.seconds,
        "best_epoch": epoch,
        "last": True,
    }
    result = Result(
        "finished",
        f"a {outcome.kept} soup of {len(soup.ingredients)} trials; not trained",
        epoch,
        runs.cards[0].split,
        device_name(device),
        code_version(),
        versions(),
        threads=torch.get_num_threads(),
        notes=(
            f"the mean of the weights of {', '.join(trial.name for trial in soup.ingredients)}",
            f"settings and epoch are those of {best.name}",
            "its validation score chose its ingredients",
        ),
        extensions=best.record.result.extensions,
    )
    start_record(folder, config)
    write_atomically(folder / MODEL, pack_model(model, Card(config, runs.cards[0].scheme, epoch)))
    write_predictions(folder, Predictions(runs.valid.ids, soup.heads, epoch))
    write_reports(folder, [report])
    write_result(folder, result)


def card_of(card: RunCard, name: str, outcomes: Sequence[Outcome]) -> RunCard:
    """What the soups share. They are no refit: nothing was trained again."""
    predicts = {outcome.trials[0].task.scheme.names for outcome in outcomes}
    return replace(
        card,
        name=name,
        epochs=max(outcome.trials[0].record.config.epochs for outcome in outcomes),
        trials=len(outcomes),
        command=shlex.join(["python", "-m", "analysis.soup", *sys.argv[1:]]),
        predicts=predicts.pop() if len(predicts) == 1 else (),
        cpus_per_trial=None,
        gpus_per_trial=None,
        refit_of="",
        origins=(),
    )

"""The command: choose members and vote on validation, score once on the hold-out, answer for the eval photos."""

import sys
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from analysis.compose import members
from analysis.ensemble import ENSEMBLES
from analysis.ensemble.files import count_people, write_outcome, write_submission
from analysis.ensemble.outcome import Outcome, choose_vote, member_probabilities, score_members
from analysis.ensemble.scoring import absent_classes
from analysis.ensemble.tables import answers_table, gain_lines, members_table, reason
from analysis.predictions import Source, data_folder, labelled_source, predict_trials, unlabelled_source, wanted_views
from analysis.top import best
from analysis.trials import Runs, Trial, load_runs, newest_run
from trainables.config import ConfigError
from trainables.data.photos import DataError, LeftOut, Photos, Unlabelled, read_photos, read_unlabelled
from trainables.data.views import View, ViewFiles, build_views, count_missing, view_cache
from trainables.progress import progress_bar
from trainables.record import RunError, find_run
from trainables.storage import StorageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    top: Annotated[int, typer.Option(help="How many members vote: the best by validation macro F1.")] = 3,
    run: Annotated[
        list[str] | None, typer.Option(help="A run's name in runs/, or its folder; repeat it for several. [default: the newest run]")
    ] = None,
    vote: Annotated[str, typer.Option(help=f"auto takes the vote that is better on validation; or {', '.join(ENSEMBLES)}.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Draws the people of the bootstrap behind every interval.")] = 0,
) -> None:
    """Let the best trials of a search vote, and say honestly what the vote is worth.

    Members and vote are chosen on the validation fold. The held-out people, whom no trial and no choice has seen, score the result
    once: macro F1 with a 95 % interval over people, beside the best single member. When the data has eval photos, their answer is
    written too.

    Trials that predict different attributes join into members, so three specialists stand beside models that predict everything:

        python -m analysis.ensemble --top 3 --run faces

        python -m analysis.ensemble --run masks --run genders --run ages --top 1

    Everything lands in runs/<first run>/ensemble/: scores.json, confusion.png, per_class.csv, members.json, submission.csv
    and probabilities.csv.
    """
    try:
        ensemble(run, top=top, vote=vote, seed=seed)
    except (RunError, DataError, ConfigError, StorageError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def ensemble(names: Sequence[str] | None, *, top: int, vote: str, seed: int) -> None:
    """Load, choose, predict, score, print, write. Raises: RunError, DataError, ConfigError."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    folders = [find_run(name) for name in names] if names else [newest_run()]
    runs = load_runs(list({folder.resolve(): folder for folder in folders}.values()))
    candidates = members(runs)
    chosen = best(candidates, top)
    choice = choose_vote(vote, chosen, runs)
    trials = list(dict.fromkeys(trial for member in chosen for trial in member.trials))
    show_runs(console, runs, len(candidates))

    data = data_folder(runs)
    photos, unlabelled = read_photos(data, runs.trials[0].record.config.data), read_unlabelled(data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = labelled_source(photos, decode(photos, wanted_views(trials), console), runs.holdout)
    predicted = predict_with_bar("predicting the hold-out", trials, source, device)
    outcome = score_members(runs, chosen, choice, member_probabilities(chosen, predicted), seed)
    show_outcome(console, runs, outcome)

    folder = runs.folders[0] / "ensemble"
    asked = {"top": top, "runs": [str(folder) for folder in runs.folders], "vote": vote, "seed": seed, "device": str(device)}
    if unlabelled is None:
        console.print(f"No answer file: {data} has no eval/info.csv.", soft_wrap=True)
        written = write_outcome(folder, runs, outcome, asked)
    elif outcome.scheme != runs.scheme:
        console.print(f"No answer file: the members predict {', '.join(outcome.scheme.names)} of {', '.join(runs.scheme.names)}.")
        written = write_outcome(folder, runs, outcome, asked)
    else:
        source = unlabelled_source(unlabelled, decode(unlabelled, wanted_views(trials), console))
        predicted = predict_with_bar("predicting the eval photos", trials, source, device)
        answer = ENSEMBLES[outcome.vote](member_probabilities(chosen, predicted))
        black = (
            [LeftOut("eval photos cannot be decoded; they were predicted as black", tuple(source.files.bad))] if source.files.bad else []
        )
        for item in black:
            console.print(str(item), style="yellow", markup=False, soft_wrap=True)
        written = write_outcome(folder, runs, outcome, asked, black)
        written += write_submission(folder, unlabelled, answer, outcome.scheme.class_names())
    console.print("Written: " + "\n         ".join(map(str, written)), soft_wrap=True)


def decode(photos: Photos | Unlabelled, views: Sequence[View], console: Console) -> ViewFiles:
    """The view files of the photos, from the cache that the trials filled or decoded under a progress bar."""
    with progress_bar("decoding photos", count_missing(photos, views, view_cache())) as progress:
        files = build_views(photos, views, view_cache(), progress)
    if files.faceless:
        console.print(files.faceless_words(len(photos.ids)), style="yellow", markup=False, soft_wrap=True)
    return files


def predict_with_bar(words: str, trials: Sequence[Trial], source: Source, device: torch.device) -> dict[Trial, np.ndarray]:
    """The probabilities of each trial, found under a progress bar."""
    with progress_bar(words, len(trials) * len(source.rows)) as progress:
        return predict_trials(trials, source, device, progress)


def show_runs(console: Console, runs: Runs, candidates: int) -> None:
    names = ", ".join(folder.resolve().name for folder in runs.folders)
    console.print(
        f"[bold]{names}[/]: {len(runs.trials)} trials can predict, {candidates} members to choose from (split {runs.cards[0].split})"
    )
    for item in runs.left_out:
        console.print(f"left out: {item}", style="yellow", markup=False, soft_wrap=True)


def show_outcome(console: Console, runs: Runs, outcome: Outcome) -> None:
    console.print(members_table(outcome))
    console.print(answers_table(outcome))
    for line in gain_lines(outcome):
        console.print(line)
    console.print(f"The answer is the [bold]{outcome.vote} vote[/], {reason(outcome.choice)}.")
    console.print(
        f"Hold-out: {len(runs.holdout.ids):,} photos of {count_people(runs):,} people that chose nothing; intervals are over people."
    )
    if absent := absent_classes(runs.holdout, outcome.scheme):
        count = f"{len(absent)} of {outcome.scheme.classes}"
        console.print(f"{count} classes are absent from the hold-out and count as 0 in macro F1: {'; '.join(absent)}.", style="yellow")


if __name__ == "__main__":
    app(prog_name="python -m analysis.ensemble")

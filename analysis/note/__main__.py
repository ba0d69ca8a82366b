"""The command: note the score that somebody else gave a submission."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from analysis.command import refusals, show_written, warn
from analysis.evaluation.elsewhere import FILE, add_note, note_of, out_of_range, run_with_notes, source_of
from trainables.commands import program
from trainables.console import document, output
from trainables.metrics import metric_of
from trainables.options import AsJson, TrustCode
from trainables.record import open_run
from trainables.registry import ConfigError, Mistake

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    submission: Annotated[Path, typer.Argument(help="The file that was scored: runs/<run>/ensemble/submission.csv, or one of predict's.")],
    score: Annotated[float, typer.Option(help="What it was given.")],
    by: Annotated[str, typer.Option(help="Who gave it, such as a leaderboard.")],
    metric: Annotated[str, typer.Option(help="By which metric, as in run/metric. [default: the run's]", show_default=False)] = "",
    on: Annotated[str, typer.Option(help="On which day, such as 2026-11-30. [default: today]", show_default=False)] = "",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Note a score from elsewhere, such as a leaderboard's, beside our own of the same answer.

        python -m analysis.note runs/faces/ensemble/submission.csv --score 0.763 --by "public leaderboard"

    It is compared with what the answer is worth on the hold-out: a score outside the 95 % CI of that is a sign that the images that were
    scored there are unlike ours. Notes are kept in elsewhere.json of the run, whatever answers later; python -m analysis.runs and the
    report show them.
    """
    with refusals():
        source = source_of(submission)
        run = run_with_notes(source)
        card = open_run(run)
        found = metric_of(metric or card.metric, card.predicted, "--metric")
        mistakes = [Mistake("--score", wrong)] if (wrong := out_of_range(score, found)) else []
        mistakes += [] if by.strip() else [Mistake("--by", "is empty; say who gave the score")]
        try:
            day = date.fromisoformat(on) if on else date.today()
        except ValueError:
            mistakes.append(Mistake("--on", f"{on!r} is no day; write one such as {date.today().isoformat()}"))
            day = date.today()
        if mistakes:
            raise ConfigError(mistakes)
        note = note_of(submission, source, score, found, by.strip(), day.isoformat())
        notes = add_note(run, note)
        console = output()
        if note.outside:
            warn(console, note)
        else:
            console.print(str(note), soft_wrap=True)
        show_written(console, [run / FILE])
        document({**note.plain(), "notes": [one.plain() for one in notes], "files": [run / FILE]})


if __name__ == "__main__":
    app(prog_name=program("analysis.note"))

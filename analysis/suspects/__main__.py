"""The command: find label issues, and make the page on which a person decides."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from analysis.command import MAPPED, HeatmapsOption, RunOption, decode, read_runs, refusals, show_left_out, show_written, table, warn
from analysis.evaluation.advice import write_noise
from analysis.evaluation.ceiling import TargetNoise
from analysis.evaluation.heatmaps import evaluated_by, whom_to_ask
from analysis.evaluation.label_issues import Findings, find_suspects
from analysis.members.heatmaps import Question
from analysis.members.predictions import Source, data_folder, wanted_views
from analysis.members.trials import HELD_OUT, Runs
from analysis.pages.heatmaps import NONE, Heats, draw_heats
from analysis.pages.tables import percent
from analysis.suspects.page import KINDS, SHOWN, groups_names, make_cards, page, suspects_csv, unevaluated_csv
from trainables.commands import program, typed
from trainables.console import document, output
from trainables.data.choices import as_choices
from trainables.data.images import DataError, Images
from trainables.data.layouts.reading import read_images
from trainables.data.names import some
from trainables.data.targets import Scheme
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting
from trainables.record import RunError, name_of, searched_run
from trainables.storage import write_atomically

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
ROWS = 12  # of the table that is printed
FEW = 5  # images of a class: with fewer, what stands out among them is chance


@app.command()
def main(
    run: RunOption = None,
    top: Annotated[int, typer.Option(help="How many trials evaluate each target: those best at it on validation.")] = 3,
    most: Annotated[int, typer.Option(min=1, help="How many label issues the page shows; suspects.csv has all.")] = 200,
    heatmaps: HeatmapsOption = MAPPED,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Find label issues (labels that are probably wrong), and decide on them one by one.

    Every image is evaluated by models that did not train on it. An issue is the label of a whole group, that of one image, or
    those of two images of a group that were swapped; the most probable mistake comes first, whichever target it is of.

    A search validates on one fold, so only the groups of that fold are evaluated. A refit on every fold evaluates all but the test part:

        python -m tuner.refit --run faces --top 3 --folds 5 --name faces-folds

        python -m analysis.suspects --run faces-folds

    Beside the images are heat maps: which parts raise what is suggested.

    Open runs/<run>/suspects/index.html, accept or reject by keyboard, by mouse or on a phone, and save relabel.csv:

        python -m tuner.run --space effnet.yaml --data photos --set labels/relabel=relabel.csv

    The page holds small copies of the images, so share it as you would share these. suspects.csv lists all label issues, unjudged.csv the
    groups that no model evaluated.
    """
    with refusals():
        suspects(run, top=top, most=most, heatmaps=heatmaps)


def suspects(names: Sequence[str] | None, *, top: int, most: int, heatmaps: int) -> None:
    """Load, evaluate, print, write. Raises: RunError, DataError, ConfigError."""
    console = output()
    runs = read_runs(names)
    refuse_numbers(runs)
    with waiting("comparing labels with predictions"):
        found = find_suspects(runs, top)
    images, why = images_of(runs)
    groups = groups_names((runs.learned, runs.holdout), images)
    limits = limits_of(runs, found)
    heats = heats_of(runs, found, images, most, heatmaps)
    with progress_bar("reading images", min(most, len(found.suspects))) as progress:
        cards, gone = make_cards(
            found.suspects[:most], images, groups, progress, lambda *suggested: heats.of([question_of(runs.scheme, *suggested)])
        )

    called = ", ".join(folder.resolve().name for folder in runs.asked)
    what = f": {len(runs.trials)} trials can evaluate {len(found.evaluated):,} groups (split {runs.cards[0].split})"
    console.print(Text.assemble((called, "bold"), what))
    show_left_out(console, (*runs.left_out, *why, *gone))
    console.print(evaluations_table(found))
    if found.suspects:
        console.print(suspects_table(found, groups))
    warn(console, *limits, *(f"no heat map of {note}" for note in heats.notes))

    folder = runs.folders[0] / "suspects"
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "index.html": page(called, found, cards, limits, heats.lines),
        "suspects.csv": suspects_csv(found.suspects, groups),
        "unjudged.csv": unevaluated_csv(found.unevaluated, groups),
    }
    for name, content in files.items():
        write_atomically(folder / name, content)
    noise = write_noise(runs.folders[0], [TargetNoise.of(one) for one in found.evaluations])
    written = [*(folder / name for name in files), noise]
    show_written(console, written)
    issues, evaluations = [asdict(one) for one in found.suspects], [asdict(one) for one in found.evaluations]
    document({"issues": issues, "evaluations": evaluations, "limits": limits, "files": written})


def refuse_numbers(runs: Runs) -> None:
    """Refuse runs whose metric scores a number: no label of it is right or wrong. Raises: RunError."""
    if runs.scheme.kind == "number":
        what = f"{runs.folders[0]}: {', '.join(runs.scheme.names)} is a number, and label issues are of classes and tags"
        raise RunError(f"{what}. The largest errors: {typed(f'analysis.mistakes --run {name_of(runs.folders[0])}')}")


def images_of(runs: Runs) -> tuple[Images, list[str]]:
    """The images of the split that are still there, tags as choices, and why there is none where the data cannot be read any more."""
    scheme = runs.cards[0].scheme
    nothing = np.zeros(0, dtype=int)
    none = Images(Path(), (), nothing, np.zeros((0, len(scheme.targets)), dtype=int), scheme)
    try:
        images = read_images(data_folder(runs), runs.trials[0].record.config.data)
    except (RunError, DataError) as error:
        return none, [f"all images, so the page shows none: {error}"]
    if images.scheme != scheme:
        return none, [f"all images, so the page shows none: the labels in {images.root} have other values than when the run was made"]
    ids = {*runs.learned.ids, *runs.holdout.ids}
    return as_choices(images.take(np.flatnonzero([name in ids for name in images.ids]))), []


def heats_of(runs: Runs, found: Findings, images: Images, shown: int, most: int) -> Heats:
    """Heat maps of what the models suggest for the images of the suspects that are shown, the first of them and at most so many."""
    there, asked = set(images.ids), []
    pictures = [(one.target, *change) for one in found.suspects[:shown] for change in one.changes()[:SHOWN] if change[0] in there]
    for one in found.evaluations:
        questions = [question_of(runs.scheme, image, target, value) for target, image, _, value in pictures[:most] if target == one.target]
        shares = {question.target: dict.fromkeys(one.trials, 1 / len(one.trials)) for question in questions}
        asked += whom_to_ask(questions, shares, evaluated_by(runs.trials, runs.valid))
    names = {question.image for one in asked for question in one.questions}
    if not names:
        return NONE
    wanted = images.take(np.flatnonzero([name in names for name in images.ids]))
    files = decode(wanted, wanted_views([trial for trial in runs.trials if trial.name in {one.trial for one in asked}]))
    return draw_heats(asked, Source(files, wanted.ids), images.root, runs.scheme)


def question_of(scheme: Scheme, image: str, target: str, suggested: str) -> Question:
    """What to ask a heat map: of classes the suggested one, of tags the tag, whether it is suggested or missed.

    Args:
        target: of classes, or a tag.
    """
    if scheme.kind == "tags":
        named = next(one for one in scheme.targets if target in one.values)
        return Question(image, named.name, named.values.index(target))
    return Question(image, target, scheme.part((target,)).targets[0].values.index(suggested))


def limits_of(runs: Runs, found: Findings) -> list[str]:
    """Sentences on what was not evaluated, and how to have it evaluated."""
    lines = [f"No trial predicts {name}: its labels were not evaluated. Add a run that does (--run)." for name in found.uncovered]
    sample = as_choices(runs.valid)
    evaluated = {one.target for one in found.evaluations}
    for column, target in enumerate(sample.scheme.targets):
        if target.name not in evaluated:
            continue
        counts = np.bincount(sample.labels[:, column], minlength=len(target.values)).tolist()
        few = [value for value, count in zip(target.values, counts, strict=True) if count < FEW]
        if few:
            words = f"fewer than {FEW} evaluated images, too few to tell which of their labels are wrong"
            lines.append(f"{len(few)} of {len(counts)} classes of {target.name} have {words}: {some(few)}.")
    held_out = sum(part == HELD_OUT for part in found.unevaluated.values())
    groups = len(found.evaluated) + len(found.unevaluated)
    if len(found.unevaluated) > held_out:
        card, run = runs.cards[0], runs.folders[0]
        searched = searched_run(run, card) if card.refit_of else run
        of_folds = searched.parent / f"{searched.name}-folds"
        folds = runs.trials[0].record.config.data.folds
        share = f"{len(found.evaluated):,} of {groups:,} groups ({len(found.evaluated) / groups:.0%})"
        lines.append(
            f"Only {runs.part} was evaluated, {share}: the others trained the models. To evaluate them too: "
            + typed(f"tuner.refit --run {name_of(searched)} --top 3 --folds {folds} --name {shlex.quote(of_folds.name)}")
            + f", then {typed(f'analysis.suspects --run {name_of(of_folds)}')}"
        )
    lines.append(f"{held_out:,} groups are the test part and were not evaluated: labels that score must not follow what models believe.")
    return lines


def evaluations_table(found: Findings) -> Table:
    """How each target was evaluated, and what came of it."""
    numbers = ("labels wrong,\nestimated", *KINDS.values())
    shown = table("Evaluated by models that did not train on the images", ("target", "evaluated", "by the mean of"), numbers)
    for one in found.evaluations:
        counts = [sum((suspect.target, suspect.kind) == (one.target, kind) for suspect in found.suspects) for kind in KINDS]
        how = "once a group" if one.by_group else "image by image"
        trials = ", ".join(one.trials)
        shown.add_row(one.target, how, trials, f"{100 * one.noise.wrong:.1f} %", *(str(count or "") for count in counts))
    return shown


def suspects_table(found: Findings, groups: Mapping[int, str]) -> Table:
    """The first label issues."""
    rows = []
    for one in found.suspects[:ROWS]:
        of = groups[one.group] if one.kind == "person" else some(one.images)
        rows.append((one.target, one.given, one.suggested, KINDS[one.kind], of, percent(one.score)))
    words = ("target", "given", "suggested", "what", "of")
    return table(f"{len(found.suspects):,} label issues, the most probable first", words, ("probably wrong",), rows)


if __name__ == "__main__":
    app(prog_name=program("analysis.suspects"))

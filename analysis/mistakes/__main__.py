"""The command: what the answer of a run gets wrong, in tables and picture sheets."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from analysis.command import (
    MAPPED,
    HeatmapsOption,
    RunOption,
    decode,
    read_runs,
    refusals,
    show_left_out,
    show_written,
    table,
    warn,
)
from analysis.evaluation.answering import choose_device
from analysis.evaluation.fitted_ensemble import FILE, Pipeline, ensemble_hash, read_ensemble
from analysis.evaluation.heatmaps import evaluated_by, shares_of, whom_to_ask
from analysis.evaluation.holdout import note_look
from analysis.evaluation.nested import MemberOptions, candidates_of, known_of, line_up
from analysis.members.heatmaps import Asked
from analysis.members.mc_dropout import has_passes
from analysis.members.predictions import PLAIN, count_passes, data_folder, labelled_source, predict_trials, wanted_views
from analysis.members.selection import take
from analysis.members.trials import Runs, Sample
from analysis.mistakes.find import SHOWN, Answered, Mistakes, TagErrors, find_mistakes, questions, subgroups_of, tag_errors, worst_first
from analysis.pages.errors import APART, LARGEST, NUMBERS, headline, size_words, subgroup_cells, votes_words
from analysis.pages.heatmaps import draw_heats
from analysis.pages.model_card import CARD, write_card
from trainables.commands import program
from trainables.console import document, output
from trainables.data.decoding import open_image
from trainables.data.images import Images
from trainables.data.layouts.reading import read_images
from trainables.data.names import shown
from trainables.data.views import ViewFiles, open_view
from trainables.metrics.confusion import most_frequent_errors
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting
from trainables.record import RunError, read_json
from trainables.registry import ConfigError, Mistake
from trainables.seeding import generator
from trainables.storage import write_atomically

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

TOP = 3
HEAD = 8  # rows of a table that are printed
COMMONEST = 3  # errors that are printed for each target


class Part(StrEnum):
    validation = "validation"
    holdout = "holdout"


@app.command()
def main(
    run: RunOption = None,
    top: Annotated[
        int | None, typer.Option(help=f"Let so many of the best members vote softly. [default: the run's ensemble; without one {TOP}]")
    ] = None,
    part: Annotated[
        Part,
        typer.Option("--part", "--side", help="validation uses the recorded predictions; holdout (test) predicts, which takes longer."),
    ] = Part.validation,
    side_by_side: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Instead of the answer: two trials, such as faces/0 faces/3, or two CSV tables of probabilities, beside each other.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="With --side-by-side of tables: a CSV of image, class, and group if there are any.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --side-by-side: the file to write. [default: side_by_side.csv]", show_default=False)
    ] = None,
    heatmaps: HeatmapsOption = MAPPED,
    seed: Annotated[int, typer.Option(min=0, help="Draws the groups behind every interval.")] = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Show what the answer of a search gets wrong: confusions, the most confident errors, where members disagree.

        python -m analysis.mistakes --run faces

        python -m analysis.mistakes --run masks --run genders --run ages --top 1

    The answer is that of runs/<first run>/ensemble/ where python -m analysis.ensemble has made one, else the soft vote of the best members.

    The images are those of the validation fold. Look at the test images (--part holdout) last: once you change something because of
    them, their score is no longer unbiased.

    Open runs/<first run>/mistakes/index.html: the images, the most confident errors first, to go through by keyboard, and beside the first
    of them heat maps: which parts raise what is predicted. It holds small copies of the images, so share it as you would share these.

    Beside it lie confusion.csv and .png, the same for each target, confident.csv and .png, disagreement.csv and .png, groups.csv, and the
    counts in mistakes.json. The ensemble's MODEL_CARD.md, where there is one, then says them too.

    Two models beside each other: for each image its label, the two most probable classes of each with their probabilities, whether they
    agree, and who is right; the images on which they are furthest apart come first.

        python -m analysis.mistakes --run faces --side-by-side faces/0 faces/3

        python -m analysis.mistakes --side-by-side a.csv b.csv --truth truth.csv --out a_and_b.csv
    """
    with refusals():
        if side_by_side:
            others = {"--top": top is not None, "--heatmaps": heatmaps != MAPPED}
            compare_two(run, side_by_side, truth, part, out or Path("side_by_side.csv"), seed, others)
            return
        if alone := [name for name, given in {"--truth": truth, "--out": out}.items() if given]:
            raise ConfigError([Mistake(name, "is an option of --side-by-side; give that, too, or leave this out") for name in alone])
        mistakes(run, top=top, part=part, heatmaps=heatmaps, seed=seed)


def mistakes(names: Sequence[str] | None, *, top: int | None, part: Part, heatmaps: int, seed: int) -> None:
    """Load, answer, find, print, write. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    runs = read_runs(names)
    show_left_out(console, runs.left_out)
    whose, pipeline = choose_pipeline(runs, top)
    console.print(f"Mistakes of {whose}.", soft_wrap=True)
    trials = [trial for trial in runs.trials if trial.name in pipeline.trials]

    images = read_images(data_folder(runs), runs.trials[0].record.config.data)
    files = decode(images, wanted_views(trials))
    sample = runs.valid if part is Part.validation else runs.holdout
    source = labelled_source(images, files, sample)
    if part is Part.holdout:
        device = choose_device()
        with progress_bar("predicting the hold-out", count_passes(trials, source, pipeline.looks)) as progress:
            predicted = predict_trials(trials, source, device, progress, looks=pipeline.looks)
    else:
        predicted = {trial.name: trial.valid for trial in trials}
        if pipeline.looks != PLAIN:
            how = "Monte Carlo dropout" if has_passes(pipeline.looks) else f"test-time augmentation ({', '.join(pipeline.looks)})"
            words = f"The ensemble uses {how}; the records hold the plain answers, shown here."
            warn(console, f"{words} --part holdout uses them all.")
    answered = Answered(
        metric=runs.metric,
        part=part.value,
        sample=sample,
        scheme=pipeline.scheme,
        members=tuple(map(str, pipeline.members)),
        probabilities=np.stack([member.answer(predicted) for member in pipeline.members]),
        answer=pipeline(predicted),
    )
    with waiting("finding subgroups with more errors"):
        found = find_mistakes(answered, subgroups_seen(sample, images, files), generator(seed, "bootstrap"))
    if part is Part.holdout:
        note_look(runs.folders, {"command": "analysis.mistakes", "answer": whose, "trials": list(pipeline.trials)})
    show(console, answered, found)
    heats = draw_heats(asked_of(answered, found, runs, pipeline, heatmaps), source, images.root, pipeline.scheme)
    warn(console, *(f"no heat map of {note}" for note in heats.notes))
    with waiting("drawing"):
        from analysis.mistakes.files import write_mistakes

        folder = runs.folders[0] / "ensemble"
        ensemble = ensemble_hash(folder) if whose == str(folder / FILE) else ""
        written = write_mistakes(runs.folders[0] / "mistakes", answered, found, images, ensemble, heats)
        if ensemble and (folder / CARD).is_file():
            written.append(write_card(runs.folders[0]))
    show_written(console, written)
    document({**read_json(runs.folders[0] / "mistakes" / "mistakes.json", "mistakes"), "files": written})


def compare_two(
    run: Sequence[str] | None, names: tuple[str, str], truth: Path | None, part: Part, out: Path, seed: int, others: Mapping[str, bool]
) -> None:
    """Compare two trials of runs, or two tables; write, print.

    Args:
        others: options that have no meaning here, and whether they were given.
    Raises: RunError, DataError, ConfigError, StorageError.
    """
    # Imported here, for pandas: it takes a while, and --help should not.
    from analysis.evaluation.answer_files import wrong_out
    from analysis.mistakes.side_by_side import compare, pair_of_files, pair_of_trials, table_of, two_trials

    console, tables = output(), [name.endswith(".csv") for name in names]
    clash = {**others, **({"--run": bool(run), "--part": part is Part.holdout} if all(tables) else {"--truth": truth is not None})}
    wrong = [Mistake(name, "has no meaning with these; leave it out") for name, given in clash.items() if given]
    if any(tables) and not all(tables):
        wrong.append(Mistake("--side-by-side", f"{' and '.join(names)} are a trial and a table; give two of a kind"))
    wrong += wrong_out(out, map(Path, (*names, *([truth] if truth else []))), "are read")
    if wrong:
        raise ConfigError(wrong)
    if all(tables):
        pair = pair_of_files(names, truth)
    else:
        runs = read_runs(run)
        trials = two_trials(runs, names, predict=part is Part.holdout)
        if part is Part.holdout:
            images = read_images(data_folder(runs), runs.trials[0].record.config.data)
            sample = runs.holdout
            source = labelled_source(images, decode(images, wanted_views(trials)), sample)
            with progress_bar("predicting the hold-out", count_passes(trials, source)) as progress:
                by_trial = predict_trials(trials, source, choose_device(), progress)
            note_look(runs.folders, {"command": "analysis.mistakes", "side_by_side": list(names)})
        else:
            sample, by_trial = runs.valid, {trial.name: trial.valid for trial in trials}
        pair = pair_of_trials(trials, sample, [by_trial[name] for name in names])
    found = compare(pair, generator(seed, "bootstrap"))
    write_atomically(out, table_of(pair).to_csv(index=False, float_format="%.6g").encode(errors="surrogateescape"))
    console.print(str(found), soft_wrap=True)
    show_written(console, [shown(str(out))])
    document({**found.plain(), "files": [out]})


def choose_pipeline(runs: Runs, top: int | None) -> tuple[str, Pipeline]:
    """The answer to look at, and whose it is: that of the first run's ensemble, or with `top` the soft vote of so many best members.

    Raises: RunError when the ensemble is damaged or of trials that these runs do not have, and when no member is asked for.
    """
    folder = runs.folders[0] / "ensemble"
    if top is None and (folder / FILE).is_file():
        pipeline = read_ensemble(folder).pipeline
        if absent := sorted(set(pipeline.trials) - {trial.name for trial in runs.trials}):
            fix = "Give the runs that it was made of (--run), or --top to let the best members vote"
            raise RunError(f"{folder / FILE} needs {', '.join(absent)}, which cannot predict here. {fix}.")
        return str(folder / FILE), pipeline
    lineup = line_up(MemberOptions(top=TOP if top is None else top), candidates_of(runs), known_of(runs))
    take(top, lineup.choice)
    return f"the soft vote of {', '.join(map(str, lineup.members))}", lineup.fit("soft")


def subgroups_seen(sample: Sample, images: Images, files: ViewFiles) -> dict[str, np.ndarray]:
    """`subgroups_of` the images, by what is to be seen in them too."""
    place = {name: number for number, name in enumerate(images.ids)}
    view = open_view(next(iter(files.files.values())))
    return subgroups_of(
        sample,
        numbers=None if images.numbers is None else images.numbers[[place[name] for name in sample.ids]],
        brightness=np.array([view.images[row].mean() for row in view.rows(sample.ids)]),
        shorter=np.array([_shorter_side(images, name) for name in sample.ids]),
        without_face=files.without_face,
    )


def asked_of(answered: Answered, found: Mistakes, runs: Runs, pipeline: Pipeline, most: int) -> list[Asked]:
    """Which models are asked for heat maps of the first images of each kind that the page shows, at most so many."""
    shown = [(one.image, one.true) for kind in (found.errors, found.disagreements) for one in kind[: min(most, SHOWN)]]
    wanted = [question for image, true in dict.fromkeys(shown) for question in questions(answered, image, true)]
    return whom_to_ask(dict.fromkeys(wanted), shares_of(pipeline), evaluated_by(runs.trials, answered.sample))


def show(console: Console, answered: Answered, found: Mistakes) -> None:
    """Print how much is wrong, and the heads of the tables."""
    console.print(headline(found.kind, answered.part, answered.images, answered.groups, found.rate))
    if answered.part == Part.validation:
        console.print("Members were chosen on these images, so the error rate on new groups is a little higher.")
    else:
        console.print("If you change something because of these images, their score is no longer unbiased.", style="yellow")

    if found.kind == "tags":
        tags = worst_first(tag_errors(found))[:HEAD]
        console.print(table("Tags with the most errors", ("tag",), ("images", "missed", "wrongly given"), map(_tag_row, tags)))
    elif found.confusions:
        console.print(table("Most frequent confusions", ("in", "true", "predicted"), ("images", "of the class"), _confusion_rows(found)))
    errors = [(error.image, error.true, error.predicted, size_words(found.kind, error.size)) for error in found.errors[:HEAD]]
    console.print(table(LARGEST[found.kind].capitalize(), ("image", "true", "predicted"), ("",), errors))
    if len(answered.members) > 1:
        apart = [
            (one.image, one.true, "; ".join(votes_words(found.kind, name, votes) for name, votes in one.tally), f"{one.divergence:.3g}")
            for one in found.disagreements[:HEAD]
        ]
        console.print(table("Where members disagree most", ("image", "true", "answers"), (APART[found.kind],), apart))
    rows = [(one.name, *subgroup_cells(one, found.kind)) for one in found.subgroups[:HEAD]]
    console.print(table("Subgroups with the most excess errors", ("subgroup",), NUMBERS[found.kind], rows))
    evaluated = [group for group in found.subgroups if group.interval]
    distinct = sum(group.distinguishable for group in evaluated)
    words = f"{distinct} of {len(evaluated)} subgroups differ significantly from the other images; about one in twenty does so by chance."
    console.print(words if evaluated else "No subgroup has enough groups to say whether it differs from the other images.")


def _confusion_rows(found: Mistakes) -> Iterator[tuple[str, ...]]:
    for one in found.confusions:
        names, images_of = one.scheme.class_names(), one.counts.sum(axis=1)
        for true, predicted in most_frequent_errors(one.counts, COMMONEST):
            count = one.counts[true, predicted]
            yield one.name or "all targets", names[true], names[predicted], f"{count:,}", f"{count / images_of[true]:.0%}"


def _tag_row(tag: TagErrors) -> tuple[str, ...]:
    return tag.name, f"{tag.images:,}", f"{tag.missed:,}", f"{tag.extra:,}"


def _shorter_side(images: Images, name: str) -> int:
    with open_image(images.root / name) as image:
        return min(image.size)


if __name__ == "__main__":
    app(prog_name=program("analysis.mistakes"))

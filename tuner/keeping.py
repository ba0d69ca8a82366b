"""What a student is worth: it, its teacher and the best single model on the hold-out, and what each costs."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console

from analysis.command import decode, show_written, table
from analysis.evaluation.answering import choose_device, open_ensemble
from analysis.evaluation.fitted_ensemble import EnsembleFile, Pipeline, ensemble_hash, location_of, write_ensemble
from analysis.evaluation.holdout import note_look, use_words
from analysis.evaluation.kept import Kept, kept_of
from analysis.evaluation.priced import Entry, note_priced
from analysis.evaluation.scoring import Score, score_answers
from analysis.evaluation.uncertainty import gain_words, score_words
from analysis.members.compose import Member, Part
from analysis.members.predictions import TrialModels, count_passes, data_folder, labelled_source, predict_trials, wanted_views
from analysis.members.price import Price, fastest, measure, price_of
from analysis.members.trials import Runs, Trial, load_runs
from analysis.votes.voting import Mean
from trainables.commands import typed
from trainables.data.layouts.reading import read_images
from trainables.data.targets import Scheme
from trainables.extensions import hashes, loaded, write_copies
from trainables.progress import progress_bar
from trainables.record import DAMAGE, RunError, open_run, read_json, write_json
from trainables.restore_data import read_teacher
from trainables.seeding import generator
from trainables.storage import Folder
from trainables.versions import device_name

KEPT = "kept.json"
ROUNDS = 3  # of measuring prices
SINGLE, TEACHER, STUDENT = "best single model", "teacher", "student"


@dataclass(frozen=True, eq=False)
class Answers:
    """Something that answers: a vote, or one trial."""

    words: str
    pipeline: Pipeline
    trials: list[TrialModels]


def singles_of(folder: Folder, content: EnsembleFile) -> list[Trial]:
    """The trials of an ensemble's runs that answer alone for all that it does, best on validation first.

    Raises: RunError where its runs cannot be read.
    """
    run = folder.resolve().parent
    names: list[str] = []
    with suppress(*DAMAGE):  # its own run is known without
        names = [PurePosixPath(name).name for name in read_json(folder / "scores.json", "scores").get("runs", [])]
    beside = [run.parent / name for name in names if name != run.name and (run.parent / name / "run.json").is_file()]
    runs = load_runs([run, *beside])
    found = [trial for trial in runs.trials if trial.task.scheme == content.pipeline.scheme]
    return sorted(found, key=lambda trial: -runs.metric.sign * trial.score)


def alone(trial: Trial, scheme: Scheme) -> Pipeline:
    """The pipeline of one trial, asked for the targets of a scheme."""
    return Pipeline(scheme, (Member(scheme, (Part(trial.name, trial.task.scheme, scheme.names),)),), Mean((1.0,)))


def one_network(single: Trial, scheme: Scheme, part: str) -> Answers:
    """The single model as one network: of a trial that has one a fold, that which trained on what the student did."""
    models = TrialModels.of(single)
    if len(single.models) == 1:
        return Answers(f"{SINGLE}, {single.name}", alone(single, scheme), [models])
    called = replace(single, name=f"{single.name}, {part}")
    one = replace(models, name=called.name, models=(single.evaluated.get(part, single.models[0]),))
    return Answers(f"{SINGLE}, {called.name}", alone(called, scheme), [one])


def answer(run: Folder, console: Console) -> dict[str, Any]:
    """Score the best student of a run on the hold-out beside its teacher and the best single model, write it down, and print it.

    The look at the hold-out is written down before. Raises: RunError where the teacher, its runs or the images are gone.
    """
    card = open_run(run)
    folder = run.parent / card.student_of
    answering = open_ensemble(folder)
    scheme = answering.content.pipeline.scheme
    runs = load_runs([run])
    students = [trial for trial in runs.trials if set(scheme.names) <= set(trial.task.scheme.names)]
    singles = singles_of(folder, answering.content)
    if not students or not singles:
        raise RunError(f"{run if not students else folder}: no trial predicts {', '.join(scheme.names)}, so there is nothing to compare")
    student, single = max(students, key=lambda trial: runs.metric.sign * trial.score), singles[0]
    there = {
        SINGLE: one_network(single, scheme, runs.part),
        TEACHER: Answers(f"{TEACHER}, {card.student_of}", answering.content.pipeline, answering.trials),
        STUDENT: Answers(f"{STUDENT}, {student.name}", alone(student, scheme), [TrialModels.of(student)]),
    }
    device = choose_device()
    answers = _holdout(runs, there, device)
    prices = _prices(there, device)
    metric = runs.metric
    scores = score_answers(answers, runs.holdout, scheme, metric, seed=0)
    found = {name: runs.holdout.evidence(metric, scheme, one) for name, one in answers.items()}
    kept = kept_of(found[STUDENT], found[TEACHER], found[SINGLE], generator(0, "bootstrap"))
    teacher = read_teacher(run, card)
    assert teacher is not None, "of a student's run"
    values: dict[str, Any] = {
        "student": student.name,
        "teacher": card.student_of,
        "single": single.name,
        "metric": metric.name,
        "taught": {"images": len(teacher.ids), "out_of_fold": int(teacher.out_of_fold.sum()), "unlabelled": len(teacher.unseen.ids)},
        "holdout": {"photos": len(runs.holdout.ids), "people": len(np.unique(runs.holdout.groups))},
        "kept": kept.plain(),
        "answers": {name: asdict(score) | score.gain.plain() | asdict(prices[name]) for name, score in scores.items()},
        "measured_on": device_name(device),
    }
    # From here on nothing is computed, and nothing is shown before it is written.
    looked = note_look([run, folder.parent], {"student": student.name, "teacher": card.student_of, "runs": [str(run), str(folder.parent)]})
    _write(run, runs, student, there[STUDENT].pipeline)
    write_json(run / KEPT, values)
    score, price = scores[STUDENT], prices[STUDENT]
    of = ensemble_hash(run / "ensemble")
    entry = Entry(f"student {student.name}", "student", score.score, score.interval, price.ms, price.megabytes, device_name(device), of)
    note_priced(run, [entry])
    show(console, there, scores, prices, kept, runs)
    if len(single.models) > 1:
        console.print(
            f"The single model is one network, as the student is; {single.name} has {len(single.models)}, one a fold.", soft_wrap=True
        )
    if words := use_words(looked):
        console.print(words, soft_wrap=True)
    exported = typed(f"analysis.export --ensemble {shlex.quote(str(run / 'ensemble'))} --precision int8 --out exported")
    console.print(f"Next: {exported}", soft_wrap=True)
    show_written(console, [run / KEPT, run / "ensemble"])
    return values | {"files": [run / KEPT, run / "ensemble"]}


def show(
    console: Console, there: Mapping[str, Answers], scores: Mapping[str, Score], prices: Mapping[str, Price], kept: Kept, runs: Runs
) -> None:
    """Print the three side by side, and what the student keeps."""
    rows = []
    for name, one in there.items():
        score, price = scores[name], prices[name]
        gain = "" if name == SINGLE else gain_words(score.gain)
        rows.append((one.words, score_words(score.score, score.interval), gain, f"{price.ms:.3g}", f"{price.megabytes:.3g}"))
    title = f"On the hold-out ({len(runs.holdout.ids):,} images of {len(np.unique(runs.holdout.groups)):,} groups), 95 % CI"
    console.print(table(title, ("",), (runs.metric.title, "against the single model", "ms an image", "MB"), rows))
    price, full = prices[STUDENT], prices[TEACHER]
    (student,) = there[STUDENT].pipeline.trials
    lead = f"{student} keeps {kept}" if kept.share is not None else f"{student}: {kept}"
    costs = f"It takes {price.ms / full.ms:.0%} of the teacher's time and {price.megabytes / full.megabytes:.0%} of its megabytes."
    worse = "significantly " if kept.lost.significant else "not significantly "
    console.print(f"{lead}. {costs}", style="bold", soft_wrap=True)
    console.print(f"Against the teacher: {gain_words(kept.lost)}, {worse}different.", soft_wrap=True)


def _holdout(runs: Runs, there: Mapping[str, Answers], device: Any) -> dict[str, np.ndarray]:
    """What each answers for the hold-out."""
    images = read_images(data_folder(runs), runs.trials[0].record.config.data)
    files = decode(images, wanted_views([trial for one in there.values() for trial in one.trials]))
    source = labelled_source(images, files, runs.holdout)
    passes = sum(count_passes(one.trials, source, one.pipeline.looks) for one in there.values())
    with progress_bar("predicting the hold-out", passes) as progress:
        return {name: one.pipeline(predict_trials(one.trials, source, device, progress, one.pipeline.looks)) for name, one in there.items()}


def _prices(there: Mapping[str, Answers], device: Any) -> dict[str, Price]:
    """What each costs on the device: the fastest of some rounds, in each of which all are measured, as what else runs comes and goes."""
    trials = {trial.name: trial for one in there.values() for trial in one.trials}
    found: dict[str, Price] = {}
    with progress_bar("measuring prices", ROUNDS * len(trials)) as measured:
        for name, trial in ROUNDS * list(trials.items()):
            found[name] = fastest(found.get(name), measure(trial, device))
            measured(1)
    return {name: price_of(found, one.pipeline.trials, len(one.pipeline.looks)) for name, one in there.items()}


def _write(run: Folder, runs: Runs, student: Trial, pipeline: Pipeline) -> None:
    """The student as an ensemble of one, for all commands that take an ensemble."""
    folder = run / "ensemble"
    folder.mkdir(parents=True, exist_ok=True)
    extensions = loaded(name for card in runs.cards for name in card.extensions)
    write_copies(folder, extensions)
    files = tuple(location_of(file, run.resolve().parent) for file in student.models)
    write_ensemble(folder, EnsembleFile({student.name: files}, pipeline, hashes(extensions)))

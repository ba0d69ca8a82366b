"""The command: choose members and their vote on validation, score once on the hold-out, answer for the eval photos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.text import Text

from analysis.command import RunOption, decode, refusals, run_folders
from analysis.ensemble.files import CORRECTED, count_people, question_of, write_classes, write_outcome, write_scores, write_submission
from analysis.ensemble.tables import (
    answers_table,
    classes_table,
    correction_words,
    decision_lines,
    fold_line,
    members_table,
    shift_table,
    steps_table,
    votes_table,
)
from analysis.evaluation.decide import Decision, Options, Outcome, averaged, decide, score_on
from analysis.evaluation.holdout import note_look
from analysis.evaluation.nested import Wish, contenders_of, known_of
from analysis.evaluation.scoring import absent_classes, class_table
from analysis.evaluation.shift import Shift, correction, estimate_all, reweighted_gain
from analysis.evaluation.steps import STEPS
from analysis.members.compose import Predicted
from analysis.members.predictions import Source, count_passes, data_folder, labelled_source, predict_looks, unlabelled_source, wanted_views
from analysis.members.trials import EVERY_FOLD, Runs, Trial, load_runs
from analysis.votes import ENSEMBLES
from trainables.console import output
from trainables.data.layouts.reading import read_photos, read_unlabelled
from trainables.data.photos import LeftOut, Photos, Unlabelled
from trainables.data.views import ViewFiles
from trainables.progress import progress_bar
from trainables.registry import ConfigError, Mistake
from trainables.seeding import generator
from trainables.storage import Folder

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
KINDS = ("backbone", "task")


@app.command()
def main(
    top: Annotated[int, typer.Option(help="How many members may vote: the best by their score on validation.")] = 3,
    run: RunOption = None,
    per: Annotated[str, typer.Option(help="Choose for diversity: the best of each backbone or task in turn.")] = "",
    diverse: Annotated[
        bool, typer.Option("--diverse", help="Choose for diversity: by score and by disagreement with those chosen.")
    ] = False,
    vote: Annotated[str, typer.Option(help=f"auto takes the one that is best on validation; or {', '.join(ENSEMBLES)}.")] = "auto",
    step: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What comes before and after the vote: auto (what helps), none, or any of calibrate, tta, {', '.join(STEPS)}; repeat it."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let the vote answer though its gain cannot be told from none.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws the people of the bootstrap behind every interval.")] = 0,
) -> None:
    """Let the best trials of a search vote, and say honestly what the vote is worth.

    Members, vote and steps are chosen and fitted on validation people, and judged there on those that they were not fitted on. A vote
    takes the place of the best single model only where its gain is larger than chance (--force: all the same). The held-out people, whom
    no trial and no choice has seen, score the result once, by the run's metric, with a 95 % interval over people. When the data has eval
    photos, their answer is written too, and whether their classes are shared out as in training.

    Trials that predict different attributes join into members in every sensible way, so specialists stand beside models that predict
    everything:

        python -m analysis.ensemble --top 3 --run faces

        python -m analysis.ensemble --run masks --run genders --run ages --top 5 --vote greedy

    A run of tuner.refit --folds is judged on everybody, each by the models that have not seen them, and its members answer with the mean
    of one model a fold.

    Everything lands in runs/<first run>/ensemble/: ensemble.json (for analysis.predict), scores.json, confusion.png, per_class.csv,
    submission.csv and probabilities.csv. What the hold-out was asked is counted in holdout.json of every run, before it answers.
    """
    with refusals():
        steps = tuple(name for name in step or ["auto"] if name != "none")
        wish = Wish(top=top, **_choice(per, diverse))
        ensemble(run, Options(wish, vote, steps, force, seed))


def _choice(per: str, diverse: bool) -> dict[str, str]:
    if per and diverse:
        raise ConfigError([Mistake("--per", "it and --diverse are two ways to choose; give one of them")])
    if per and per not in KINDS:
        raise ConfigError([Mistake("--per", f"{per!r} is not known; take {' or '.join(KINDS)}")])
    return {"choose": "diverse"} if diverse else {"choose": "per kind", "per": per} if per else {}


def ensemble(names: Sequence[str] | None, options: Options) -> None:
    """Load, choose, predict, score, print, write. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    runs = load_runs(run_folders(names))
    show_runs(console, runs)
    predictor = Predictor.of(runs, console)
    decision = decide(options, contenders_of(runs), known_of(runs), predictor.validation)
    trials = tuple(dict.fromkeys(name for pipeline in decision.pipelines.values() for name in pipeline.trials))
    looks = tuple(dict.fromkeys(look for pipeline in decision.pipelines.values() for look in pipeline.looks))
    predicted, price = predictor.holdout(looks, trials)
    asked = {
        "top": options.wish.top,
        "choose": options.wish.choose + (f": {options.wish.per}" if options.wish.choose == "per kind" else ""),
        "runs": [str(folder) for folder in runs.folders],
        "vote": options.vote,
        "steps": list(options.steps),
        "force": options.force,
        "seed": options.seed,
        "device": str(predictor.device),
    }
    outcome = score_on(decision, runs.holdout, predicted, options.seed)
    so_far = note_look(runs.folders, question_of(asked))
    show_outcome(console, runs, outcome)
    answering = decision.pipelines[decision.final]
    seconds = len(answering.looks) * sum(price[name] for name in answering.trials)
    device = f"{predictor.device}, {torch.get_num_threads()} threads" if predictor.device.type == "cpu" else torch.cuda.get_device_name()
    console.print(f"The answer takes {1000 * seconds:.2f} ms a photo here ({device}), of views that are decoded already.")

    folder = runs.folders[0] / "ensemble"
    if len(so_far) > 1:
        console.print(
            f"The hold-out has answered {len(so_far)} different calls for this run; the best of many answers looks better than it is.",
            style="yellow",
        )
    written = write_outcome(folder, runs, outcome)
    shifts, black = answer_unlabelled(console, runs, decision, predictor, folder, options.seed, written)
    written.insert(0, write_scores(folder, runs, outcome, asked, so_far, seconds, shifts, black))
    console.print("Written: " + "\n         ".join(map(str, written)), soft_wrap=True)


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts the photos of the runs under a progress bar."""

    runs: Runs
    data: Path  # where the photos lie
    photos: Photos
    unlabelled: Unlabelled | None
    device: torch.device
    console: Console

    @classmethod
    def of(cls, runs: Runs, console: Console) -> "Predictor":
        data = data_folder(runs)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(runs, data, read_photos(data, runs.trials[0].record.config.data), read_unlabelled(data), device, console)

    def validation(self, looks: tuple[str, ...], trials: tuple[str, ...]) -> Mapping[str, Predicted]:
        """What the trials predict of the validation photos, each photo by weights that have not seen it."""
        chosen, valid = self._named(trials), self.runs.valid
        files = self._decoded(self.photos, chosen)
        found: dict[str, dict[str, list[np.ndarray]]] = {look: {trial: [] for trial in trials} for look in looks}
        order = []
        for side in np.unique(valid.sides):
            rows = np.flatnonzero(valid.sides == side)
            judges = [replace(trial, models=(trial.judged[side],)) for trial in chosen]
            source = labelled_source(self.photos, files, valid.take(rows))
            by_look = self._predict(f"predicting {side} in other looks", judges, source, looks)
            for look, trial in product(looks, trials):
                found[look][trial].append(by_look[look][trial])
            order.append(rows)
        back = np.argsort(np.concatenate(order))
        return {look: {trial: np.concatenate(parts)[back] for trial, parts in by_trial.items()} for look, by_trial in found.items()}

    def holdout(self, looks: tuple[str, ...], trials: tuple[str, ...]) -> tuple[Mapping[str, Predicted], dict[str, float]]:
        """What the trials predict of the held-out photos, and each trial's seconds for one look at one photo."""
        chosen, price = self._named(trials), {}
        source = labelled_source(self.photos, self._decoded(self.photos, chosen), self.runs.holdout)
        return self._predict("predicting the hold-out", chosen, source, looks, price.__setitem__), price

    def eval(self, looks: tuple[str, ...], trials: tuple[str, ...]) -> tuple[Mapping[str, Predicted], Source]:
        """What the trials predict of the eval photos, in their order."""
        chosen = self._named(trials)
        source = unlabelled_source(self.unlabelled, self._decoded(self.unlabelled, chosen))
        return self._predict("predicting the eval photos", chosen, source, looks), source

    def _named(self, names: tuple[str, ...]) -> list[Trial]:
        return [trial for trial in self.runs.trials if trial.name in names]

    def _predict(
        self,
        words: str,
        trials: Sequence[Trial],
        source: Source,
        looks: tuple[str, ...],
        timed: Callable[[str, float], None] = lambda name, seconds: None,
    ) -> Mapping[str, Predicted]:
        with progress_bar(words, count_passes(trials, source, looks)) as progress:
            return predict_looks(trials, source, self.device, looks, progress, timed)

    def _decoded(self, photos: Photos | Unlabelled, trials: Sequence[Trial]) -> ViewFiles:
        files = decode(photos, wanted_views(trials))
        if files.faceless:
            self.console.print(files.faceless_words(len(photos.ids)), style="yellow", markup=False, soft_wrap=True)
        return files


def answer_unlabelled(
    console: Console, runs: Runs, decision: Decision, predictor: Predictor, folder: Folder, seed: int, written: list[Folder]
) -> tuple[Sequence[Shift], Sequence[LeftOut]]:
    """Answer for the eval photos, if the data has some; what their classes' shares are found to be, and which cannot be decoded."""
    if predictor.unlabelled is None:
        console.print(f"No answer file: {predictor.data} has no eval/info.csv.", soft_wrap=True)
        return (), ()
    if decision.scheme != runs.scheme:
        console.print(f"No answer file: the members predict {', '.join(decision.scheme.names)} of {', '.join(runs.scheme.names)}.")
        return (), ()
    pipeline = decision.pipelines[decision.final]
    by_look, source = predictor.eval(pipeline.looks, pipeline.trials)
    answer = pipeline(averaged(by_look, pipeline.looks, pipeline.trials))
    written += write_submission(folder, predictor.unlabelled, answer, decision.scheme.class_names())
    shifts = shifts_of(runs, decision, answer, seed)
    console.print(shift_table(decision.scheme, shifts))
    if any(shift.proven for shift in shifts):
        step, truth = correction(decision.scheme, shifts), runs.valid.classes(decision.scheme)
        gain = reweighted_gain(decision.nested, truth, runs.valid.people, step, runs.metric, generator(seed, "bootstrap"))
        write_classes(folder / CORRECTED, predictor.unlabelled, step(answer))
        written.append(folder / CORRECTED)
        console.print(
            f"{CORRECTED} answers for the eval photos with these shares in mind: {correction_words(gain, runs.metric)}.", soft_wrap=True
        )
    black = [LeftOut("eval photos cannot be decoded; they were predicted as black", tuple(source.files.bad))] if source.files.bad else []
    for item in black:
        console.print(str(item), style="yellow", markup=False, soft_wrap=True)
    return shifts, black


def shifts_of(runs: Runs, decision: Decision, answer: np.ndarray, seed: int) -> tuple[Shift, ...]:
    """How the classes of photos without labels (photos, classes) are shared out, beside those that the trials learned from."""
    scheme, learned = decision.scheme, runs.learned
    trained = {
        attribute.name: np.bincount(learned.labels[:, column], minlength=len(attribute.values)) / len(learned.ids)
        for column, attribute in enumerate(learned.scheme.attributes)
    }
    truth = runs.valid.classes(scheme)
    return estimate_all(scheme, decision.nested, truth, runs.valid.people, trained, answer, generator(seed, "bootstrap"))


def fold_scores(runs: Runs, decision: Decision) -> dict[str, float]:
    """The score of the answer on each fold, each person answered for by what was fitted on others."""
    rows = {fold: np.flatnonzero(runs.valid.sides == fold) for fold in np.unique(runs.valid.sides).tolist()}
    return {fold: runs.valid.take(chosen).score(decision.metric, decision.scheme, decision.nested[chosen]) for fold, chosen in rows.items()}


def show_runs(console: Console, runs: Runs) -> None:
    names = ", ".join(folder.resolve().name for folder in runs.folders)
    what = f": {len(runs.trials)} trials can predict (split {runs.cards[0].split}, judged on {runs.side})"
    console.print(Text.assemble((names, "bold"), what))
    for item in runs.left_out:
        console.print(f"left out: {item}", style="yellow", markup=False, soft_wrap=True)


def show_outcome(console: Console, runs: Runs, outcome: Outcome) -> None:
    decision = outcome.decision
    console.print(members_table(outcome, {trial.name: trial for trial in runs.trials}))
    console.print(votes_table(decision))
    if decision.steps:
        console.print(steps_table(decision))
    for line in decision_lines(decision):
        console.print(line, markup=False, soft_wrap=True)
    if runs.side == EVERY_FOLD:
        console.print(fold_line(fold_scores(runs, decision)))
    console.print(classes_table(class_table(outcome.answer, runs.holdout, decision.scheme)))
    console.print(answers_table(outcome))
    console.print(
        f"Hold-out: {len(runs.holdout.ids):,} photos of {count_people(runs):,} people that chose nothing; intervals are over people."
    )
    if absent := absent_classes(runs.holdout, decision.scheme):
        count, fate = f"{len(absent)} of {decision.scheme.classes}", decision.metric.unseen
        words = f"{count} classes are absent from the hold-out{f' and {fate}' if fate else ''}: {'; '.join(absent)}."
        console.print(words, style="yellow", markup=False)


if __name__ == "__main__":
    app(prog_name="python -m analysis.ensemble")

"""The command: choose members and their vote on validation, score once on the hold-out, answer for the eval images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from analysis.command import RunOption, decode, read_runs, refusals
from analysis.ensemble.files import EvalAnswer, novelty_values, price_values, question_of, scores_values, write_answer
from analysis.ensemble.member_options import MarginOptions, read_margin, read_member_options, settle, settle_margin
from analysis.ensemble.summary import MOST, Context, answer_lines, summary
from analysis.ensemble.tables import (
    answers_table,
    classes_table,
    correction_words,
    decision_lines,
    decision_notes,
    fold_line,
    limit_words,
    members_table,
    shift_table,
    steps_table,
    votes_table,
)
from analysis.evaluation.answering import choose_device
from analysis.evaluation.baseline import find_baseline
from analysis.evaluation.decide import Decision, Options, Outcome, decide, score_on
from analysis.evaluation.holdout import note_look, use_words
from analysis.evaluation.nested import candidates_of, known_of
from analysis.evaluation.novelty import Novelty, Watch, learn, model_for, reference
from analysis.evaluation.scoring import AlsoScored, also_words, class_table
from analysis.evaluation.search.summary import write_summary
from analysis.evaluation.shift import Shift, correction, estimate_all, reweighted_gain
from analysis.evaluation.steps import STEPS
from analysis.evaluation.submission import CORRECTED
from analysis.members.compose import Predicted
from analysis.members.mc_dropout import dropout_layers, has_passes
from analysis.members.predictions import (
    Load,
    Source,
    TrialModels,
    averaged,
    count_passes,
    data_folder,
    labelled_source,
    load_once,
    predict_transforms,
    unlabelled_source,
    wanted_views,
)
from analysis.members.price import Limit, Price, measure, price_of
from analysis.members.trials import EVERY_FOLD, Runs, Trial
from analysis.pages.model_card import write_card
from analysis.votes import ENSEMBLES
from trainables.commands import program, typed
from trainables.console import document, open_console, output
from trainables.data.images import Images, LeftOut, Unlabelled
from trainables.data.layouts.reading import read_images, read_unlabelled
from trainables.data.names import shown
from trainables.data.views import ViewFiles, open_view
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting
from trainables.record import RunError, name_of, searched_run
from trainables.registry import ConfigError, Mistake
from trainables.seeding import generator
from trainables.storage import Folder
from trainables.versions import device_name

if TYPE_CHECKING:
    import torch

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    files: Annotated[list[Path] | None, typer.Argument(help="With --csv: the files that vote, two or more.", show_default=False)] = None,
    top: Annotated[
        int | None, typer.Option(help="How many members may vote: the best by their score on validation. [default: 3]", show_default=False)
    ] = None,
    run: RunOption = None,
    members: Annotated[str, typer.Option(help="Who votes, in place of --top: trials, such as faces/0,faces/3.", show_default=False)] = "",
    whole: Annotated[bool, typer.Option("--whole", help="Whole trials vote; none is composed of specialists.")] = False,
    per: Annotated[str, typer.Option(help="Choose for diversity: the best of each backbone or task in turn.")] = "",
    diverse: Annotated[
        bool, typer.Option("--diverse", help="Choose for diversity: by score and by disagreement with those chosen.")
    ] = False,
    vote: Annotated[str, typer.Option(help=f"auto takes the one that is best on validation; or {', '.join(ENSEMBLES)}.")] = "auto",
    step: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Steps before and after the vote: auto (those that help), none, or any of calibrate, tta, {', '.join(STEPS)}; repeat it."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Top-2 margin rule with this gap, in nats: of the two most probable classes, where their logits lie no further apart, "
            "the one with more images is taken.",
            show_default=False,
        ),
    ] = None,
    margin_for: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=VALUE",
            help="With --margin: only where this value gives way to another of its target, to a neighbour of a number's; repeat it.",
            show_default=False,
        ),
    ] = None,
    margin_each: Annotated[bool, typer.Option("--margin-each", help="With --margin: in each member's answer, before the vote.")] = False,
    margin_disagree: Annotated[
        bool, typer.Option("--margin-disagree", help="With --margin: only for images on which the two best members disagree.")
    ] = False,
    mc_dropout: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Monte Carlo dropout: let every model answer N times, with other units left out by its own dropout, and take the mean.",
            show_default=False,
        ),
    ] = None,
    safe: Annotated[bool, typer.Option("--safe", help="Let a vote answer only if it is significantly better than the best model.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws the groups of the bootstrap behind every interval.")] = 0,
    max_ms: Annotated[
        float,
        typer.Option(min=0, help="The most milliseconds that the answer may take here for an image that comes alone.", show_default=False),
    ] = inf,
    max_mb: Annotated[float, typer.Option(min=0, help="The most megabytes that its weights may have.", show_default=False)] = inf,
    csv: Annotated[bool, typer.Option("--csv", help="Let finished submissions or probability files vote instead of trials.")] = False,
    out: Annotated[Path, typer.Option(help="With --csv: the file to write.")] = Path("vote.csv"),
    details: Annotated[bool, typer.Option("--details", help="Print every table behind the answer, too.")] = False,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Let the best trials of a search vote, and measure what the vote is worth.

    Members, vote and steps are chosen and fitted on validation groups, and evaluated there on groups that they were not fitted on. Of the
    best single model and all votes the one with the best score answers (--safe: a vote only if it is significantly better than the best
    single model; --vote: the vote that is named). The test part (hold-out),
    which no trial and no choice has seen, scores the result once, by the run's metric, with a 95 % CI over groups. When the data has eval
    images, their answer is written too, and whether their class priors differ from those of training.

    Trials that predict different targets are composed into members in every sensible way, so specialists vote beside models that predict
    everything:

        python -m analysis.ensemble --top 3 --run faces

        python -m analysis.ensemble --run masks --run genders --run ages --top 5 --vote greedy

    Name who votes: trials by name, whole trials, or finished submissions and probability files:

        python -m analysis.ensemble --run faces --members faces/0,faces/3

        python -m analysis.ensemble --run faces --top 3 --whole --vote hard

        python -m analysis.ensemble --csv a.csv b.csv c.csv --out vote.csv

    Nothing of a margin rule whose gap is given is fitted; what it is worth is said beside the other steps. By the two best models, of which
    the best answers:

        python -m analysis.ensemble --run faces --top 2 --whole --vote best --margin 0.3 --margin-for "age>=60" --margin-disagree

    A run of tuner.refit --folds is evaluated on every fold, each by the models that did not train on it; its members answer with the mean
    of one model a fold.

    Where it must not cost more than so much, the best answer below that is given, and what it would be else is said:

        python -m analysis.ensemble --run faces --max-ms 20 --max-mb 50

    Everything lands in runs/<first run>/ensemble/: ensemble.json (for analysis.predict), scores.json, confusion.png, per_class.csv,
    submission.csv, probabilities.csv and MODEL_CARD.md, which says all of this to who was not there. Each use of the hold-out is counted in
    holdout.json of every run. Everything is on disk before it is printed.
    """
    with refusals():
        if csv:
            others = {
                "--run": run,
                "--top": top,
                "--members": members,
                "--whole": whole,
                "--per": per,
                "--diverse": diverse,
                "--step": step,
                "--mc-dropout": mc_dropout,
                "--max-ms": max_ms < inf,
                "--max-mb": max_mb < inf,
                "--margin": margin is not None,
                "--margin-for": margin_for,
                "--margin-each": margin_each,
                "--margin-disagree": margin_disagree,
            }
            refuse_others(others, "is an option for trials, and with --csv files vote; remove it")
            files_vote(files or [], vote, out)
            return
        refuse_others({str(file): True for file in files or ()}, "is not an option; files vote with --csv")
        steps = tuple(name for name in step or ["auto"] if name != "none")
        member_options = read_member_options(top, members, whole, per, diverse)
        rule = read_margin(margin, margin_for or (), margin_each, margin_disagree)
        options = Options(member_options, vote, steps, safe, seed, max_ms, max_mb, mc_dropout or 0)
        document(ensemble(run, options, details, rule))


def refuse_others(given: Mapping[str, object], why: str) -> None:
    """Raises: ConfigError naming all options that were given."""
    mistakes = [Mistake(name, why) for name, value in given.items() if value]
    if mistakes:
        raise ConfigError(mistakes)


def files_vote(files: Sequence[Path], vote: str, out: Path) -> None:
    """Let finished files vote. Raises: ConfigError, StorageError."""
    from analysis.ensemble.of_files import vote_over, write_vote

    voted = vote_over(files, vote, out)
    write_vote(out, voted)
    console, images = output(), len(voted.table)
    console.print(f"Answer: {voted.vote} vote of {len(files)} files over {images:,} images: {shown(str(out))}", soft_wrap=True)
    console.print(f"The files differ in the class of {voted.disputed:,} of {images:,} images.")
    document({"vote": voted.vote, "images": images, "differ": voted.disputed, "files": [out]})


def answer(run: Folder) -> None:
    """The answer of a run as the command gives it by default, for who has just searched it. Raises: as `ensemble`."""
    ensemble([str(run)], Options(read_member_options(None, "", False, "", False)), details=False)


def ensemble(names: Sequence[str] | None, options: Options, details: bool, rule: MarginOptions | None = None) -> dict[str, Any]:
    """Load, choose, predict, score, write, print. Returns what scores.json holds, and which files were written.

    Raises: RunError, DataError, ConfigError, StorageError.
    """
    runs = read_runs(names)
    status = open_console(stderr=True)
    status.print(runs_words(runs), soft_wrap=True)
    refuse_one_group(runs)
    chosen = settle(options.member_options, runs)
    predictor = Predictor.of(runs, status)
    free = replace(options, member_options=chosen, margin=settle_margin(rule, chosen, runs) if rule else None)
    limited = min(options.max_ms, options.max_mb) < inf
    prices = predictor.prices([trial.name for trial in runs.trials]) if limited else {}
    options = replace(free, member_options=replace(chosen, limit=Limit(prices, options.max_ms, options.max_mb))) if limited else free
    candidates, known = candidates_of(runs), known_of(runs)
    with waiting("choosing who votes, and how"):
        decision = decide(options, candidates, known, predictor.validation)
    unlimited = decide(replace(free, steps=()), candidates, known, predictor.validation) if limited else None
    trials = tuple(dict.fromkeys(name for pipeline in decision.pipelines.values() for name in pipeline.trials))
    looks = tuple(dict.fromkeys(look for pipeline in decision.pipelines.values() for look in pipeline.looks))
    novelty = predictor.learn(decision.pipelines[decision.final].trials, options.seed)
    watch = Watch(novelty, runs.trials, load_once)
    predicted, price = predictor.holdout(looks, trials, watch.load)
    far = watch.distances(len(runs.holdout.ids))
    prices = prices or predictor.prices(trials)
    with waiting("scoring the answer"):
        outcome = score_on(decision, runs.holdout, predicted, options.seed)
        baseline = find_baseline(runs, decision, options.seed)
    unlabelled, why_none = answer_unlabelled(runs, decision, predictor, options.seed)
    asked = {
        "top": chosen.top,
        "choose": chosen.choose + (f": {chosen.per}" if chosen.choose == "per kind" else ""),
        "runs": [str(folder) for folder in runs.folders],
        "vote": options.vote,
        "steps": list(options.steps),
        "safe": options.safe,
        "seed": options.seed,
        "device": str(predictor.device),
    }
    # Named only where they are asked for: the questions of earlier versions stay the same questions.
    asked |= {"members": sorted(chosen.named)} if chosen.named else {"whole": True} if chosen.alone else {}
    asked |= {"mc_dropout": options.mc_dropout} if options.mc_dropout else {}
    asked |= {"max_ms": options.max_ms} if options.max_ms < inf else {}
    asked |= {"max_mb": options.max_mb} if options.max_mb < inf else {}
    asked |= {"margin": asdict(rule)} if rule else {}
    answering = decision.pipelines[decision.final]
    seconds = len(answering.looks) * sum(price[name] for name in answering.trials)
    # From here on nothing is computed, and nothing is shown before it is written.
    looked = note_look(runs.folders, question_of(asked))
    folder = runs.folders[0] / "ensemble"
    scores = scores_values(runs, outcome, asked, looked, baseline, seconds, device_words(predictor.device), unlabelled)
    scores |= price_values(runs, outcome, predicted["plain"], prices, unlimited) | {"novelty": novelty_values(novelty, far)}
    with waiting("writing files and figures"):
        written = [*write_answer(folder, runs, outcome, unlabelled, novelty, scores), write_card(runs.folders[0])]
        write_summary(runs.folders[0])
    also = also_words([AlsoScored(**one) for one in scores["also"]])
    top, there = options.member_options.top, decision.lineup.choice
    fewer = f"Members to choose from: {there}, fewer than --top {top}." if top and top > there else ""
    limit_note = limit_words(options, decision, unlimited, prices) if unlimited else ""
    notes = [*filter(None, [limit_note, fewer, also]), *scores["findings"], *notes_of(runs, outcome, looked, unlabelled, why_none)]
    left_out = (*runs.left_out, *(unlabelled.black if unlabelled else ()))
    console, answer = output(), answer_lines(runs, outcome)
    console.print(answer, style="bold", soft_wrap=True)
    if details:
        show_details(console, runs, outcome, unlabelled)
        console.print(f"Its price there: {price_of(prices, answering.trials, len(answering.looks))}.")
        console.print(f"The answer takes {1000 * seconds:.3g} ms an image here ({scores['measured_on']}), of decoded images.")
    context = Context(baseline, folder, written, predictor.images.root, left_out, notes)
    for line in summary(runs, outcome, context, None if details else MOST - 2 * len(answer.splitlines())):
        console.print(line, soft_wrap=True)
    console.print(answer, style="bold", soft_wrap=True)
    return {**scores, "files": written}


def refuse_one_group(runs: Runs) -> None:
    """Raises: RunError where a single group validates: nothing can be evaluated on groups that it was not chosen on."""
    if len(np.unique(runs.valid.groups)) > 1:
        return
    run, card, folds = runs.folders[0], runs.cards[0], runs.trials[0].record.config.data.folds
    again = typed(f"tuner.refit --run {name_of(searched_run(run, card) if card.refit_of else run)} --top 3 --folds {folds}")
    words = f"one group of images is all that {runs.part} validates on, so no choice can be evaluated on other groups"
    raise RunError(f"{run}: {words}. Train the best trials on every fold ({again}) and give that run.")


def notes_of(runs: Runs, outcome: Outcome, looked: Sequence[object], unlabelled: EvalAnswer | None, why_none: str) -> list[str]:
    """Sentences on what to keep in mind about the answer."""
    notes = [words] if (words := use_words(looked)) else []
    if runs.part == EVERY_FOLD:
        notes.append(fold_line(fold_scores(runs, outcome.decision)))
    notes += decision_notes(outcome.decision)
    if unlabelled is None:
        notes.append(why_none)
    elif unlabelled.corrected is not None and unlabelled.worth is not None:
        shifted = [
            target.name for target, shift in zip(outcome.decision.scheme.targets, unlabelled.shifts, strict=False) if shift.significant
        ]
        lead = f"Class priors of the eval images differ significantly ({', '.join(shifted)}): {CORRECTED} corrects for that"
        notes.append(f"{lead}, {correction_words(unlabelled.worth, runs.metric)}.")
    return notes


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts the images of the runs under a progress bar."""

    runs: Runs
    data: Path  # where the images lie
    images: Images
    unlabelled: Unlabelled | None
    console: Console

    @classmethod
    def of(cls, runs: Runs, console: Console) -> "Predictor":
        data = data_folder(runs)
        settings = runs.trials[0].record.config.data
        return cls(runs, data, read_images(data, settings), read_unlabelled(data, settings), console)

    @cached_property
    def device(self) -> "torch.device":
        """Where models compute; asked for late, when all that can be wrong has been checked."""
        return choose_device()

    def validation(self, looks: tuple[str, ...], trials: tuple[str, ...]) -> Mapping[str, Predicted]:
        """What the trials predict of the validation images, each image by weights that have not seen it."""
        chosen, valid = self._named(trials), self.runs.valid
        if has_passes(looks):
            self.check_dropout(chosen)
        files = self._decoded(self.images, chosen)
        found: dict[str, dict[str, list[np.ndarray]]] = {look: {trial: [] for trial in trials} for look in looks}
        order = []
        for part in np.unique(valid.parts):
            rows = np.flatnonzero(valid.parts == part)
            unseen = [replace(trial, models=(trial.evaluated[part],)) for trial in chosen]
            source = labelled_source(self.images, files, valid.take(rows))
            how = "Monte Carlo dropout" if has_passes(looks) else "test-time augmentation"
            by_transform = self._predict(f"predicting {part} with {how}", unseen, source, looks)
            for look, trial in product(looks, trials):
                found[look][trial].append(by_transform[look][trial])
            order.append(rows)
        back = np.argsort(np.concatenate(order))
        return {look: {trial: np.concatenate(parts)[back] for trial, parts in by_trial.items()} for look, by_trial in found.items()}

    def check_dropout(self, trials: Sequence[Trial]) -> None:
        """Name the trials whose networks leave nothing out. Raises: ConfigError where all do."""
        bare = [trial.name for trial in trials if not dropout_layers(load_once(trial.models[0], self.device)[0])]
        words = f"{', '.join(bare)}: no dropout, so all passes would be one (model/dropout is 0, or changes no layer)"
        if 0 < len(bare) < len(trials):
            others = "the others alone say how far passes are from one another"
            self.console.print(f"--mc-dropout: {words}; {others}", style="yellow", markup=False, soft_wrap=True)
        elif bare:
            raise ConfigError([Mistake("--mc-dropout", f"{words}. Leave it out, or let others vote (--members)")])

    def learn(self, trials: tuple[str, ...], seed: int) -> Novelty:
        """How these trials show what they learned from, to tell images that are unlike it."""
        from trainables.features import features_of
        from trainables.loop import choose_precision

        chosen, samples, found = self._named(trials), reference(self.runs, seed), {}
        files = self._decoded(self.images, chosen)
        with progress_bar("remembering what was learned from", len(chosen)) as learned:
            for trial in chosen:
                number = model_for(trial, samples[1])
                model, card = load_once(trial.models[number], self.device)
                opened, edges = open_view(files.files[card.view]), card.config.model.sees_edges
                precision = choose_precision(card.config.train.precision, self.device)
                rows = [opened.rows(labelled_source(self.images, files, sample).ids) for sample in samples]
                train, valid = (features_of(model, opened, one, self.device, precision, edges).values for one in rows)
                found[trial.name] = number, train, valid
                learned(1)
        return learn(found)

    def holdout(
        self, looks: tuple[str, ...], trials: tuple[str, ...], load: Load = load_once
    ) -> tuple[Mapping[str, Predicted], dict[str, float]]:
        """What the trials predict of the held-out images, and each trial's seconds for one transform of one image."""
        chosen, price = self._named(trials), {}
        source = labelled_source(self.images, self._decoded(self.images, chosen), self.runs.holdout)
        return self._predict("predicting the hold-out", chosen, source, looks, price.__setitem__, load), price

    def eval(self, images: Unlabelled, looks: tuple[str, ...], trials: tuple[str, ...]) -> tuple[Mapping[str, Predicted], Source]:
        """What the trials predict of the eval images, in their order."""
        chosen = self._named(trials)
        source = unlabelled_source(images, self._decoded(images, chosen))
        return self._predict("predicting the eval images", chosen, source, looks), source

    def prices(self, names: Sequence[str]) -> dict[str, Price]:
        """What each trial costs on the device."""
        trials = self._named(tuple(names))
        with progress_bar("measuring prices", len(trials)) as measured:
            found = {}
            for trial in trials:
                found[trial.name] = measure(TrialModels.of(trial), self.device)
                measured(1)
            return found

    def _named(self, names: tuple[str, ...]) -> list[Trial]:
        return [trial for trial in self.runs.trials if trial.name in names]

    def _predict(
        self,
        words: str,
        trials: Sequence[Trial],
        source: Source,
        looks: tuple[str, ...],
        timed: Callable[[str, float], None] = lambda name, seconds: None,
        load: Load = load_once,
    ) -> Mapping[str, Predicted]:
        with progress_bar(words, count_passes(trials, source, looks)) as progress:
            return predict_transforms(trials, source, self.device, looks, progress, timed, load)

    def _decoded(self, images: Images | Unlabelled, trials: Sequence[Trial]) -> ViewFiles:
        files = decode(images, wanted_views(trials))
        for note in files.notes(len(images.ids)):
            self.console.print(note, style="yellow", markup=False, soft_wrap=True)
        return files


def answer_unlabelled(runs: Runs, decision: Decision, predictor: Predictor, seed: int) -> tuple[EvalAnswer | None, str]:
    """The answer for the eval images and what their classes' shares are found to be; or why there is none."""
    if predictor.unlabelled is None:
        return None, f"No answer file: {predictor.data} has no test part without labels."
    if decision.scheme != runs.scheme:
        return None, f"No answer file: the members predict {', '.join(decision.scheme.names)} of {', '.join(runs.scheme.names)}."
    pipeline = decision.pipelines[decision.final]
    by_transform, source = predictor.eval(predictor.unlabelled, pipeline.looks, pipeline.trials)
    answer = pipeline(averaged(by_transform, pipeline.looks, pipeline.trials))
    shifts = shifts_of(runs, decision, answer, seed) if decision.scheme.kind == "classes" else ()
    bad = tuple(source.files.bad)
    black = (LeftOut("eval images cannot be decoded; they were predicted as black", bad),) if bad else ()
    found = EvalAnswer(predictor.unlabelled, answer, shifts, black=black)
    if any(shift.significant for shift in shifts):
        step, truth = correction(decision.scheme, shifts), runs.valid.truth(decision.scheme)
        worth = reweighted_gain(decision.nested, truth, runs.valid.groups, step, runs.metric, generator(seed, "bootstrap"))
        found = replace(found, corrected=step(answer), worth=worth)
    return found, ""


def shifts_of(runs: Runs, decision: Decision, answer: np.ndarray, seed: int) -> tuple[Shift, ...]:
    """How the classes of images without labels (images, classes) are shared out, beside those that the trials learned from."""
    scheme, learned = decision.scheme, runs.learned
    trained = {
        target.name: np.bincount(learned.labels[:, column], minlength=len(target.values)) / len(learned.ids)
        for column, target in enumerate(learned.scheme.targets)
    }
    truth = runs.valid.truth(scheme)
    return estimate_all(scheme, decision.nested, truth, runs.valid.groups, trained, answer, generator(seed, "bootstrap"))


def fold_scores(runs: Runs, decision: Decision) -> dict[str, float]:
    """The score of the answer on each fold, each group answered for by what was fitted on others."""
    rows = {fold: np.flatnonzero(runs.valid.parts == fold) for fold in np.unique(runs.valid.parts).tolist()}
    return {fold: runs.valid.take(chosen).score(decision.metric, decision.scheme, decision.nested[chosen]) for fold, chosen in rows.items()}


def device_words(device: "torch.device") -> str:
    """Where a price was measured."""
    import torch

    threads = torch.get_num_threads()
    return f"{device_name(device)}, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device_name(device)


def runs_words(runs: Runs) -> str:
    """Which runs, and how much there is to choose from and by."""
    names = ", ".join(folder.resolve().name for folder in runs.asked)
    valid = f"{len(runs.valid.ids):,} images of {len(np.unique(runs.valid.groups)):,} groups"
    return f"{names}: {len(runs.trials)} trials can predict; {runs.part} validates, {valid} (split {runs.cards[0].split})"


def show_details(console: Console, runs: Runs, outcome: Outcome, unlabelled: EvalAnswer | None) -> None:
    """Every table behind the answer."""
    decision = outcome.decision
    console.print(members_table(outcome, {trial.name: trial for trial in runs.trials}))
    console.print(votes_table(decision))
    if decision.steps:
        console.print(steps_table(decision))
    for line in decision_lines(decision):
        console.print(line, markup=False, soft_wrap=True)
    console.print(classes_table(class_table(outcome.answer, runs.holdout, decision.scheme)))
    console.print(answers_table(outcome))
    if unlabelled and unlabelled.shifts:
        console.print(shift_table(decision.scheme, unlabelled.shifts))


if __name__ == "__main__":
    app(prog_name=program("analysis.ensemble"))

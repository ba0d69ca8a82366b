"""What the command leaves in runs/<run>/ensemble/; every file is complete or absent."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.evaluation.baseline import Baseline
from analysis.evaluation.calibration import calibration_error
from analysis.evaluation.decide import Decision, Outcome, StepTaken, answer_words
from analysis.evaluation.disaggregated import by_target, by_value, class_intervals
from analysis.evaluation.fitted_ensemble import FILE, EnsembleFile, location_of, write_ensemble
from analysis.evaluation.novelty import FALSE_ALARMS, Novelty, write_novelty
from analysis.evaluation.novelty import FILE as NOVELTY
from analysis.evaluation.scoring import absent_classes, class_table, plain_findings, scores_by
from analysis.evaluation.shift import Shift, Worth
from analysis.evaluation.submission import CORRECTED, SUBMISSION, submission_table
from analysis.members.compose import Predicted
from analysis.members.price import Price, price_of
from analysis.members.trials import Runs, Trial
from analysis.pages.model_card import CARD
from search_spaces.schema import flat
from trainables.data.images import LeftOut, Unlabelled
from trainables.data.targets import Kind, Scheme
from trainables.data.views import View
from trainables.extensions import hashes, loaded, write_copies
from trainables.metrics.confusion import confusion
from trainables.record import write_json
from trainables.seeding import generator
from trainables.storage import Folder, file_size, write_atomically
from trainables.versions import versions

if TYPE_CHECKING:
    import pandas as pd

SCORES = "scores.json"
PICTURES: dict[Kind, str] = {"classes": "confusion.png", "tags": "precision_recall.png", "number": "number.png"}
NO_QUESTION = ("seed", "device")  # settings that change no answer


@dataclass(frozen=True, eq=False)
class EvalAnswer:
    """What the ensemble answers for the images without labels that come with the data."""

    images: Unlabelled
    answer: np.ndarray  # (images, classes)
    shifts: tuple[Shift, ...]
    corrected: np.ndarray | None = None  # likewise, with significant shifts in mind
    worth: Worth | None = None  # of that correction
    black: tuple[LeftOut, ...] = ()  # images that cannot be decoded


def write_answer(
    folder: Folder, runs: Runs, outcome: Outcome, unlabelled: EvalAnswer | None, novelty: Novelty, scores: Mapping[str, Any]
) -> list[Folder]:
    """Write the fitted ensemble, its figures and its answers, and last the scores: these only ever stand beside the ensemble they are of.

    A submission of an earlier ensemble is removed: it would not be of these members.
    """
    scheme = outcome.decision.scheme
    (picture_name, picture), table = answer_picture(runs, outcome), class_table(outcome.answer, runs.holdout, scheme)
    table = table.join(class_intervals(outcome.answer, runs.holdout, scheme, seed=0))
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CARD, SCORES, NOVELTY, *SUBMISSION, CORRECTED, *PICTURES.values()):
        (folder / name).unlink(missing_ok=True)
    content = ensemble_file(runs, outcome)
    write_copies(folder, loaded(content.extensions))
    write_ensemble(folder, content)
    _write_table(folder / "per_class.csv", table)
    write_atomically(folder / picture_name, picture)
    written = [folder / FILE, write_novelty(folder, novelty), *(folder / name for name in ("per_class.csv", picture_name))]
    if unlabelled:
        written += write_submission(folder, unlabelled.images, unlabelled.answer, scheme)
        if unlabelled.corrected is not None:
            write_classes(folder / CORRECTED, unlabelled.images, unlabelled.corrected, scheme)
            written.append(folder / CORRECTED)
    write_json(folder / SCORES, scores)
    return [folder / SCORES, *written]


def answer_picture(runs: Runs, outcome: Outcome) -> tuple[str, bytes]:
    """The name of the picture of how the answer does on the hold-out, and the picture as PNG."""
    from analysis.figures.confusion import confusion_figure
    from analysis.figures.style import as_png
    from analysis.figures.targets import number_figure, tags_figure

    scheme, holdout, score = outcome.decision.scheme, runs.holdout, outcome.score
    low, high = score.interval
    title = f"Hold-out: {answer_words(outcome.decision.final)}"
    caption = (
        f"{outcome.decision.metric.title} {score.score:.3f} (95 % {low:.3f} to {high:.3f}) "
        f"· {len(holdout.ids):,} images of {count_groups(runs):,} groups"
    )
    truth, answer = holdout.truth(scheme), outcome.answer
    if scheme.kind == "tags":
        figure = tags_figure(truth, answer, scheme.class_names(), title, caption)
    elif scheme.kind == "number":
        figure = number_figure(truth, answer[:, 0], scheme.names[0], title, caption)
    else:
        figure = confusion_figure(confusion(truth, answer.argmax(axis=1), scheme.classes), scheme, title, caption)
    return PICTURES[scheme.kind], as_png(figure)


def question_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the hold-out is asked by a call with these settings."""
    return {name: value for name, value in settings.items() if name not in NO_QUESTION}


def write_submission(folder: Folder, images: Unlabelled, answer: np.ndarray, scheme: Scheme) -> list[Folder]:
    """Write the class, the tags or the number of every image and the answer (images, columns) behind it, in the images' order."""
    import pandas as pd

    submission, probabilities = (folder / name for name in SUBMISSION)
    write_classes(submission, images, answer, scheme)
    table = pd.DataFrame(answer, columns=scheme.class_names())
    table.insert(0, "ImageID", images.ids)
    _write_table(probabilities, table)
    return [submission, probabilities]


def write_classes(file: Folder, images: Unlabelled, answer: np.ndarray, scheme: Scheme) -> None:
    """Write what every image is, under the columns that the data asks for."""
    _write_table(file, submission_table(images, answer, scheme))


def scores_values(
    runs: Runs,
    outcome: Outcome,
    settings: Mapping[str, Any],
    asked: Sequence[Mapping[str, Any]],
    baseline: Baseline | None,
    seconds: float,
    device: str,
    unlabelled: EvalAnswer | None,
) -> dict[str, Any]:
    """What validation decided and what the hold-out says to it, with the settings and versions that made it, as plain values.

    Args:
        asked: what the hold-out has been asked so far.
        seconds: an image, on the device that is named.
    """
    decision, trials = outcome.decision, {trial.name: trial for trial in runs.trials}
    choice, scheme, missing_weights = decision.choice, decision.scheme, decision.missing_weights
    weights = getattr(decision.pipelines[choice.vote].ensemble, "weights", None)
    return {
        "settings": dict(settings),
        "runs": [str(folder) for folder in runs.folders],
        "split": runs.cards[0].split,
        "attributes": list(scheme.names),
        "metric": decision.metric.name,
        "kind": scheme.kind,
        "holdout": {
            "photos": len(runs.holdout.ids),
            "people": count_groups(runs),
            "absent_classes": absent_classes(runs.holdout, scheme),
            "questions": list(asked),
        },
        "validation": {"photos": len(runs.valid.ids), "people": len(np.unique(runs.valid.groups)), "side": runs.part},
        "learned": {"photos": len(runs.learned.ids), "people": len(np.unique(runs.learned.groups))},
        "counts": _counts(runs),
        "members": [
            {
                "name": str(member),
                "trials": [_trial_values(trials[name]) for name in member.trials],
                "weight": None if weights is None else weights[index],
                "valid_score": decision.member_scores[index],
                "holdout_score": outcome.member_scores[index],
                "like_the_best": bool(decision.alike[index]),
            }
            for index, member in enumerate(decision.lineup.members)
        ],
        "models": [_model_values(trials[name]) for name in decision.pipelines[decision.final].trials],
        "members_to_choose_from": decision.lineup.choice,
        "also": [asdict(one) for one in scores_by(runs.also, outcome.answer, runs.holdout, scheme, seed=0)],
        "findings": plain_findings(outcome.answer, runs.holdout, runs.valid, scheme, decision.metric, seed=0),
        "untried": list(decision.untried),
        "too_few_groups_for": list(decision.few),
        "wanting": missing_weights and {"judged": asdict(missing_weights.evaluated), "trials": list(missing_weights.trials)},
        "optimism": asdict(decision.optimism),
        "vote": choice.vote,
        "asked": choice.asked,
        "supported": choice.significant,
        "safe": choice.safe,
        "answer": decision.final,
        "votes": {name: asdict(evaluated) | evaluated.gain.plain() for name, evaluated in choice.evaluated.items()},
        "steps": [_step_values(step) for step in decision.steps],
        "answers": {name: asdict(score) | score.gain.plain() for name, score in outcome.scores.items()},
        "targets": [asdict(one) for one in by_target(outcome.answer, runs.holdout, scheme, decision.metric, seed=0)],
        "values": [asdict(one) for one in by_value(outcome.answer, runs.holdout, scheme, seed=0)],
        **(_class_values(runs, outcome) if scheme.kind == "classes" else {}),
        "baseline": baseline and {"trial": baseline.trial, "valid_score": baseline.score, **baseline.gain.plain()},
        "seconds_per_photo": seconds,
        "measured_on": device,
        "shift": [
            asdict(shift) | {"values": target.values, "significant": shift.significant}
            for target, shift in zip(scheme.targets, unlabelled.shifts if unlabelled else (), strict=False)
        ],
        "left_out": [str(item) for item in (*runs.left_out, *(unlabelled.black if unlabelled else ()))],
        "versions": versions(),
    }


def price_values(
    runs: Runs, outcome: Outcome, predicted: Predicted, prices: Mapping[str, Price], unlimited: Decision | None
) -> dict[str, Any]:
    """What the answers cost, and each trial that answers for everything alone with its score on the hold-out.

    Args:
        predicted: of the hold-out, by trial.
        unlimited: what would answer if it might cost anything, where there is a limit.
    """
    decision, found = outcome.decision, []
    for trial in runs.trials:
        if trial.name in predicted and trial.task.scheme == decision.scheme:
            own = runs.holdout.evidence(decision.metric, decision.scheme, predicted[trial.name])
            score = {"score": own.score(), "interval": own.interval(generator(0, "bootstrap"))}
            soup = trial.record.result.reason.endswith("not trained")
            found.append({"name": trial.name, "soup": soup, **score, **asdict(prices[trial.name])})
    answers = {name: asdict(price_of(prices, one.trials, len(one.looks))) for name, one in decision.pipelines.items()}
    without = unlimited and {
        "answer": unlimited.choice.answer,
        "judged": asdict(unlimited.choice.evaluated[unlimited.choice.answer]),
        "price": asdict(price_of(prices, unlimited.pipelines[unlimited.choice.answer].trials)),
    }
    return {"prices": answers, "singles": found, "too_dear": list(decision.choice.too_dear), "without_limit": without}


def novelty_values(novelty: Novelty, distances: np.ndarray | None) -> dict[str, Any]:
    """How many images of the hold-out, which lie so far away (n,), are flagged although they are like those learned from."""
    flagged = 0 if distances is None else int(novelty.flags(distances, FALSE_ALARMS).sum())
    return {"false_alarms": FALSE_ALARMS, "validation": len(novelty.valid), "holdout": flagged}


def _class_values(runs: Runs, outcome: Outcome) -> dict[str, Any]:
    """What is counted of classes alone."""
    scheme = outcome.decision.scheme
    truth = runs.holdout.truth(scheme)
    return {
        "confusion": confusion(truth, outcome.answer.argmax(axis=1), scheme.classes).tolist(),
        "calibration": asdict(calibration_error(outcome.answer, truth)),
    }


def _step_values(step: StepTaken) -> dict[str, Any]:
    values = asdict(step)
    return values | {"judged": values.pop("evaluated") | step.evaluated.gain.plain()}


def ensemble_file(runs: Runs, outcome: Outcome) -> EnsembleFile:
    """What it takes to answer again: the fitted answer, and each trial's models by their paths from the runs' folder.

    Models in an object store have their address.
    """
    decision, root = outcome.decision, runs.folders[0].resolve().parent
    pipeline = decision.pipelines[decision.final]
    models = {trial.name: tuple(location_of(file, root) for file in trial.models) for trial in runs.trials if trial.name in pipeline.trials}
    return EnsembleFile(models, pipeline, hashes(loaded(name for card in runs.cards for name in card.extensions)))


def count_groups(runs: Runs) -> int:
    """Groups held out."""
    return len(np.unique(runs.holdout.groups))


def _trial_values(trial: Trial) -> dict[str, Any]:
    return {
        "run": trial.name.rpartition("/")[0],
        "number": trial.record.number,
        "state": trial.record.result.state,
        "models": len(trial.models),
        "config": trial.record.config.values(),
    }


def _model_values(trial: Trial) -> dict[str, Any]:
    """A trial that answers: what it takes, what it weighs, and its settings but those that are as they are by default."""
    config = trial.record.config
    return {
        "name": trial.name,
        "backbone": config.model.backbone,
        "view": str(View.of(config.view)),
        "edges": config.model.sees_edges,
        "models": len(trial.models),
        "bytes": sum(map(file_size, trial.models)),
        "epoch": trial.record.result.best_epoch,
        "settings": flat(config.model_dump(mode="json", exclude_defaults=True)),
    }


def _counts(runs: Runs) -> dict[str, dict[str, list[float]]]:
    """By target and by its classes or tags, how many images have each: of those that trials learned from or were validated on, of those
    that validated, and of the hold-out. Of a number the least, the median and the greatest of each part."""
    found: dict[str, dict[str, list[float]]] = {}
    for target in runs.cards[0].scheme.targets:
        parts = [one.truth(one.scheme.part((target.name,))) for one in (runs.learned, runs.valid, runs.holdout)]
        if target.kind == "number":
            names, columns = ("minimum", "median", "maximum"), [np.quantile(one, [0, 0.5, 1]) for one in parts]
        else:
            names = target.values
            columns = [one.sum(axis=0) if target.kind == "tags" else np.bincount(one, minlength=len(names)) for one in parts]
        found[target.name] = dict(zip(names, np.stack(columns, axis=1).tolist(), strict=True))
    return found


def _write_table(file: Folder, table: "pd.DataFrame") -> None:
    write_atomically(file, table.to_csv(index=False, float_format="%.6g").encode())

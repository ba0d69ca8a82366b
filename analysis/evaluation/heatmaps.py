"""Heat maps of an answer: the mean of its members' maps, target by target."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.members.heatmaps import Asked, Question
from analysis.members.trials import Sample, Trial
from analysis.votes.voting import Mean
from trainables.storage import Folder

# The files of weights that answer for an image under a trial's name, of the name and the image; several count the same.
Models = Callable[[str, str], Sequence[Folder]]
Shares = Mapping[str, Mapping[str, float]]  # by target and trial: what the trial's map of it counts


def shares_of(pipeline: Pipeline) -> Shares:
    """What each trial's map of each target counts in that of the answer.

    A member's map of a target is that of the part which answers for it. Where the vote is a weighted mean of what members say, their maps
    are weighted alike; where it counts votes or ranks, or is fitted on top of members (its weights may be negative, and belong to classes),
    each counts the same. Advisors, who are heard on some images only, calibration, test-time augmentation (the plain transform is looked
    at) and the steps behind the vote have no part in it.
    """
    members = len(pipeline.members)
    weights = pipeline.ensemble.weights if isinstance(pipeline.ensemble, Mean) else (1 / members,) * members
    shares: dict[str, dict[str, float]] = {name: defaultdict(float) for name in pipeline.scheme.names}
    for member, weight in zip(pipeline.members, weights, strict=True):
        for part in member.parts if weight else ():
            for name in part.names:
                shares[name][part.trial] += weight
    return shares


def evaluated_by(trials: Iterable[Trial], sample: Sample) -> Models:
    """The models of these trials behind the recorded answers for a sample: for an image of a fold the one that has not seen it, for one
    that is held out all of a trial's."""
    known, part = {trial.name: trial for trial in trials}, dict(zip(sample.ids, sample.parts.tolist(), strict=True))

    def models(name: str, image: str) -> Sequence[Folder]:
        trial = known[name]
        return (trial.evaluated[part[image]],) if part[image] in trial.evaluated else trial.models

    return models


def whom_to_ask(questions: Iterable[Question], shares: Shares, models: Models) -> list[Asked]:
    """Each model that has a part in the answers to these questions, with those that it is asked."""
    found: dict[tuple[str, Folder], dict[Question, float]] = defaultdict(dict)
    for question in questions:
        for trial, share in shares.get(question.target, {}).items():
            files = models(trial, question.image)
            for file in files:
                found[trial, file][question] = share / len(files)
    return [Asked(trial, file, asked) for (trial, file), asked in found.items()]

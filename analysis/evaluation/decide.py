"""From members to a scored answer: validation chooses and fits, part by part of the groups; the hold-out scores once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from analysis.evaluation.calibration import calibration_error
from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.margin import Margin
from analysis.evaluation.nested import Candidate, Known, Lineup, MemberOptions, Nested, crossfit_step, fit_nested, line_up, searched
from analysis.evaluation.scoring import Score, score_answers
from analysis.evaluation.steps import STEPS, is_free, useful_steps
from analysis.evaluation.uncertainty import Gain, Optimism, indistinguishable, optimism, simultaneous_gains
from analysis.members.compose import Predicted
from analysis.members.mc_dropout import passes
from analysis.members.predictions import averaged
from analysis.members.price import price_of
from analysis.members.selection import take
from analysis.members.trials import Sample
from analysis.members.tta import TRANSFORM_SETS
from analysis.votes import ENSEMBLES
from analysis.votes.folds import part_groups
from trainables.data.targets import Scheme
from trainables.metrics import Metric, probabilities_missing
from trainables.metrics.evidence import Evidence, evidence
from trainables.progress import progress_bar
from trainables.registry import ConfigError, Mistake, choose
from trainables.seeding import generator

SINGLE = "best single"
GREEDY_ALL = "greedy_all"  # in ENSEMBLES
ENOUGH_GROUPS = 150  # of validation images, for every vote to be tried; found by benchmarks/decision.py
MARGIN = "margin"  # a step that is given, and not in STEPS, which are fitted
STEP_WORDS = {
    "calibrate": "temperature calibration",
    MARGIN: "top-2 margin rule, given",
    "offsets": "per-class thresholds",
    "top_two": "top-2 margin rule",
    "thresholds": "per-tag thresholds",
}
WITH_STEPS = " with steps"  # what follows the name of an answer that has some
TransformNames = tuple[str, ...]
# Predicts the validation images: transforms, trials -> by transform.
PredictValidation = Callable[[TransformNames, tuple[str, ...]], Mapping[str, Predicted]]


@dataclass(frozen=True)
class Evaluated:
    """What an answer is worth on validation groups that it was not fitted on."""

    score: float  # by the run's metric
    interval: tuple[float, float]  # 95 %
    gain: Gain  # over the reference; its interval holds together with those of all that the best was picked from


@dataclass(frozen=True)
class Choice:
    """The best of the votes, and whether it takes the place of the best single model."""

    asked: str  # auto or a name in ENSEMBLES
    vote: str  # the best of those that were tried
    evaluated: Mapping[str, Evaluated]  # of SINGLE and every vote that was tried; gains are over SINGLE
    safe: bool = False  # whether a vote answers only where it is significantly better
    too_dear: tuple[str, ...] = ()  # votes that cost more than the limit

    @property
    def gain(self) -> Gain:
        """Of the vote over the best single model."""
        return self.evaluated[self.vote].gain

    @property
    def significant(self) -> bool:
        """Whether the vote is significantly better than the best single model."""
        return self.gain.interval[0] > 0

    @property
    def answer(self) -> str:
        """What answers: the candidate with the best score, or the vote that was asked for; `safe`: a vote only if it is significantly
        better than the best single model. None that costs more than the limit."""
        if self.vote in self.too_dear:
            return SINGLE
        if self.safe:
            return self.vote if self.significant else SINGLE
        return self.vote if self.asked != "auto" or self.gain.gain > 0 else SINGLE


@dataclass(frozen=True)
class StepTaken:
    """One thing that can come before or after a vote, and what it was found to be worth."""

    name: str
    evaluated: Evaluated  # the gain is over the answer without it
    asked: bool
    used: bool
    error: tuple[float, float] | None = None  # expected calibration error before and after
    price: float = 1.0  # times the seconds of an image


@dataclass(frozen=True)
class MissingWeights:
    """A better vote whose weights were not all kept."""

    evaluated: Evaluated  # the gain is over SINGLE
    trials: tuple[str, ...]  # that it takes and that have no weights


@dataclass(frozen=True, eq=False)
class Decision:
    """Everything that validation decides."""

    lineup: Lineup  # the members of the vote that was chosen
    choice: Choice
    steps: tuple[StepTaken, ...]
    pipelines: Mapping[str, Pipeline]  # SINGLE, every vote that was tried, and where steps are used the answer WITH_STEPS
    final: str  # the name of the pipeline that answers
    nested: np.ndarray  # (n, classes) the final answer for the validation images, each by what has not seen its group
    member_scores: tuple[float, ...]  # of each member on the images that it was chosen on
    alike: np.ndarray  # (members,) which are not significantly worse than the best
    optimism: Optimism  # of the best member's score on validation, over all that were searched
    untried: tuple[str, ...]  # votes and steps that the metric has no use for, where auto would have tried them
    few: tuple[str, ...] = ()  # votes that auto did not try, as there are too few groups to choose among so many
    missing_weights: MissingWeights | None = None

    @property
    def scheme(self) -> Scheme:
        return self.pipelines[self.final].scheme

    @property
    def metric(self) -> Metric:
        return self.lineup.metric


@dataclass(frozen=True)
class Options:
    """What the user asks of an ensemble."""

    member_options: MemberOptions
    vote: str = "auto"
    steps: tuple[str, ...] = ("auto",)  # auto: those that help; or names of STEPS, calibrate and tta; empty: none
    safe: bool = False  # a vote answers only where it is significantly better than the best single model
    seed: int = 0
    max_ms: float = inf  # an image that comes alone; how much an answer may take
    max_mb: float = inf  # of weights
    mc_dropout: int = 0  # passes of Monte Carlo dropout, whose mean answers; 0: none
    margin: Margin | None = None  # a top-2 margin rule whose gap is given


def decide(options: Options, candidates: Mapping[str, Candidate], known: Known, predict_validation: PredictValidation) -> Decision:
    """Choose members, their vote and the steps around it by what each is worth on groups that it was not fitted on.

    Args:
        predict_validation: predicts the validation images again, with transforms of test-time augmentation.
    Raises: ConfigError for a vote or step that is unknown or has no use for the metric, RunError when no member is asked for.
    """
    choose({"auto": None, **ENSEMBLES}, options.vote, "--vote")
    for name in options.steps:
        choose({"auto": None, "tta": None, "calibrate": None, **STEPS}, name, "--step")
    _refuse_useless(options, known.metric)
    lineup = line_up(options.member_options, candidates, known)
    take(options.member_options.top, lineup.choice)
    parts = part_groups(known.groups, lineup.target, options.seed)
    evaluate = _Evaluator(known.metric, known.groups, lineup.target, options.seed)
    names, few = votes_to_try(options.vote, known.metric, len(np.unique(known.groups)))
    alone = MemberOptions(top=1, alone=True, limit=options.member_options.limit)
    everyone = replace(options.member_options, top=None, choose="best")
    asked = {SINGLE: (alone, "best")} | {
        name: (everyone if ENSEMBLES[name].picks_members else options.member_options, name) for name in names
    }
    nested, pipelines = {}, {}
    with progress_bar("fitting votes", len(asked) * (1 + len(parts))) as fitted:
        for member_options in dict.fromkeys(member_options for member_options, _ in asked.values()):
            votes = {name: vote for name, (own, vote) in asked.items() if own == member_options}
            found = fit_nested(member_options, tuple(dict.fromkeys(votes.values())), candidates, known, parts, fitted)
            whole = lineup if member_options == options.member_options else line_up(member_options, candidates, known)
            for name, vote in votes.items():
                nested[name], pipelines[name] = found[vote], whole.fit(vote)
                fitted(1)
    answers = {name: nested[name].answer(known.predicted) for name in (SINGLE, *names)}
    evaluated = evaluate.each(answers, answers[SINGLE])
    evaluated |= {name: evaluated[SINGLE] for name in names if _same(pipelines[name], pipelines[SINGLE], known)}
    too_dear = tuple(name for name in names if not options.member_options.allows(pipelines[name].trials))
    _refuse_too_dear(options, pipelines, too_dear)
    fitting = [name for name in names if name not in too_dear]
    choice = Choice(options.vote, evaluate.best(fitting or names, evaluated), evaluated, options.safe, too_dear)
    if ENSEMBLES[choice.vote].picks_members:
        lineup = line_up(everyone, candidates, known).only(pipelines[choice.vote].members)
    walk = _Walk(options, candidates, known, parts, evaluate, predict_validation, *asked[choice.answer])
    steps, stepped, answer = walk.go(nested[choice.answer], answers[choice.answer], pipelines[choice.answer])
    final = choice.answer + (WITH_STEPS if any(step.used for step in steps) else "")
    pipelines[final] = stepped
    members = [evaluate.evidence(answer) for answer in lineup.answers]
    return Decision(
        lineup=lineup,
        choice=choice,
        steps=tuple(steps),
        pipelines=pipelines,
        final=final,
        nested=answer,
        member_scores=tuple(one.score() for one in members),
        alike=indistinguishable(members, generator(options.seed, "bootstrap")),
        optimism=optimism(list(searched(options.member_options, candidates, known)), evaluate.rng()),
        untried=untried(options, known.metric),
        few=few,
        missing_weights=_missing_weights(everyone, candidates, known, parts, evaluate, choice, answers) if GREEDY_ALL in names else None,
    )


def _refuse_too_dear(options: Options, pipelines: Mapping[str, Pipeline], too_dear: Sequence[str]) -> None:
    limit = options.member_options.limit
    if limit and options.vote in too_dear:
        price = price_of(limit.prices, pipelines[options.vote].trials)
        raise ConfigError(
            [Mistake("--vote", f"{options.vote!r} takes {price}, over {limit}; allow more, or fewer members (--top), or leave it out")]
        )


def votes_to_try(asked: str, metric: Metric, groups: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The votes to try by their names, and those that are left out because there are too few groups of images to choose among so many."""
    if asked != "auto":
        return (asked,), ()
    useful = tuple(name for name, vote in ENSEMBLES.items() if name not in useless(metric)[0] and not vote.by_name)
    few = tuple(name for name in useful if not ENSEMBLES[name].robust) if groups < ENOUGH_GROUPS else ()
    return tuple(name for name in useful if name not in few), few


def _same(pipeline: Pipeline, single: Pipeline, known: Known) -> bool:
    """Whether a vote came out as the best single model: it predicts the same of every image. What it gained on the way is luck."""
    own, other = (known.metric.prediction(one(known.predicted)) for one in (pipeline, single))
    return own.shape == other.shape and np.allclose(own, other)


def _missing_weights(
    everyone: MemberOptions,
    candidates: Mapping[str, Candidate],
    known: Known,
    parts: Sequence[np.ndarray],
    evaluate: "_Evaluator",
    choice: Choice,
    answers: Mapping[str, np.ndarray],
) -> MissingWeights | None:
    """Greedy selection over all trials, those without weights too, where it is better than what answers and takes such trials."""
    if all(candidate.votes for candidate in candidates.values()):
        return None
    voting = {name: replace(candidate, votes=True) for name, candidate in candidates.items()}
    with progress_bar("fitting a vote of all trials", len(parts)) as fitted:
        answer = fit_nested(everyone, (GREEDY_ALL,), voting, known, parts, fitted)[GREEDY_ALL].answer(known.predicted)
    evaluated = evaluate(answer, answers[SINGLE])
    bare = tuple(name for name in line_up(everyone, voting, known).fit(GREEDY_ALL).trials if not candidates[name].votes)
    better = known.metric.sign * (evaluated.score - choice.evaluated[choice.answer].score) > 0
    return MissingWeights(evaluated, bare) if better and bare else None


def useless(metric: Metric) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The votes and the steps that a metric has no use for: those without probabilities, those that only move labels, and those that are
    for another kind of target."""
    votes = tuple(
        name for name, one in ENSEMBLES.items() if (one.shares_only and metric.takes == "probabilities") or metric.target not in one.kinds
    )
    own = {*useful_steps(metric), *(("calibrate",) if metric.target == "classes" else ())}
    return votes, tuple(name for name in ("calibrate", *STEPS) if name not in own)


def _refuse_margin(options: Options, metric: Metric) -> Iterator[Mistake]:
    """What is wrong with a margin rule that is given."""
    if options.margin is None:
        return
    if metric.takes != "labels":
        yield Mistake("--margin", f"has no use for run/metric {metric.name}, which scores {metric.takes}; leave it out")
    if options.margin.disagree:
        few = options.member_options.top is not None and options.member_options.top < 2
        if options.vote == "auto" or options.safe or few or ENSEMBLES[options.vote].picks_members:
            words = "compares the two best members of a vote: name one (--vote) that picks none itself, of two or more, without --safe"
            yield Mistake("--margin-disagree", words)


def untried(options: Options, metric: Metric) -> tuple[str, ...]:
    """What auto would have tried by another metric of this kind of target: votes without probabilities, and what moves labels."""
    no_votes, no_steps = useless(metric)
    votes = [name for name in no_votes if metric.target in ENSEMBLES[name].kinds] if options.vote == "auto" else []
    steps = [name for name in no_steps if metric.target == "classes"] if "auto" in options.steps else []
    return (*votes, *steps)


def _refuse_useless(options: Options, metric: Metric) -> None:
    votes, steps = useless(metric)
    mistakes = []
    if options.mc_dropout and "tta" in options.steps:
        mistakes.append(Mistake("--mc-dropout", "averages passes, as --step tta does transforms; give one of them"))
    if options.vote in votes:
        other = f"{options.vote!r} is not for {metric.target}, which run/metric {metric.name} scores; take another"
        fits = metric.target in ENSEMBLES[options.vote].kinds
        mistakes.append(Mistake("--vote", (fits and probabilities_missing(metric, "it", options.vote)) or other))
    words = f"has no use for run/metric {metric.name}, which scores {metric.takes} of {metric.target}; leave it out"
    mistakes += [Mistake("--step", f"{name} {words}") for name in options.steps if name in steps]
    mistakes += _refuse_margin(options, metric)
    if mistakes:
        raise ConfigError(mistakes)


@dataclass(frozen=True, eq=False)
class _Evaluator:
    metric: Metric
    groups: np.ndarray
    target: np.ndarray
    seed: int

    def evidence(self, answer: np.ndarray) -> Evidence:
        return evidence(self.metric, self.target, answer, self.groups)

    def each(self, answers: Mapping[Any, np.ndarray], reference: np.ndarray) -> dict[Any, Evaluated]:
        """What each of some answers is worth, of which the best is going to be picked."""
        found = [self.evidence(answer) for answer in answers.values()]
        gains = simultaneous_gains(found, self.evidence(reference), self.rng())
        return {name: Evaluated(one.score(), one.interval(self.rng()), gain) for name, one, gain in zip(answers, found, gains, strict=True)}

    def best(self, names: Iterable[Any], evaluated: Mapping[Any, Evaluated]) -> Any:
        """The one with the best score; the first where several have it."""
        return max(names, key=lambda name: self.metric.sign * evaluated[name].score)

    def __call__(self, answer: np.ndarray, reference: np.ndarray) -> Evaluated:
        return self.each({None: answer}, reference)[None]

    def rng(self) -> np.random.Generator:
        return generator(self.seed, "bootstrap")


@dataclass(frozen=True, eq=False)
class _Walk:
    """Trying one step after the other, each on top of those that were taken."""

    options: Options
    candidates: Mapping[str, Candidate]
    known: Known
    parts: tuple[np.ndarray, ...]
    evaluate: _Evaluator
    predict_validation: PredictValidation
    member_options: MemberOptions
    vote: str

    def go(self, nested: Nested, answer: np.ndarray, pipeline: Pipeline) -> tuple[list[StepTaken], Pipeline, np.ndarray]:
        """The steps tried, the pipeline with those that are used, and its nested answer."""
        taken: list[StepTaken] = []
        predicted = self.known.predicted
        if self._tried("calibrate"):
            member_options = replace(self.member_options, calibrate=True)
            tempered = fit_nested(member_options, (self.vote,), self.candidates, self.known, self.parts)[self.vote]
            changed = tempered.answer(predicted)
            errors = tuple(calibration_error(one, self.evaluate.target).expected for one in (answer, changed))
            step = self._weigh("calibrate", self.evaluate(changed, answer), error=errors)
            fitted = line_up(member_options, self.candidates, self.known).fit(self.vote) if step.used else pipeline
            # Calibrated, others may be chosen, which may cost more.
            step = replace(step, used=step.used and member_options.allows(fitted.trials))
            taken.append(step)
            if step.used:
                nested, answer, pipeline = tempered, changed, fitted
        if self.options.margin:
            calibrated = any(step.used for step in taken)
            member_options = replace(self.member_options, calibrate=calibrated, margin=self.options.margin)
            nested = fit_nested(member_options, (self.vote,), self.candidates, self.known, self.parts)[self.vote]
            changed, pipeline = nested.answer(predicted), line_up(member_options, self.candidates, self.known).fit(self.vote)
            taken.append(self._weigh(MARGIN, self.evaluate(changed, answer), asked=True))
            answer = changed
        if self.options.mc_dropout:
            names = passes(self.options.mc_dropout)
            if not self.member_options.allows(pipeline.trials, len(names)):
                words = f"{len(names)} passes take more than {self.member_options.limit}; ask for fewer"
                raise ConfigError([Mistake("--mc-dropout", words)])
            by_pass = self.predict_validation(names, pipeline.trials)
            # Where other trials were chosen on a part of the groups, these answer as they are.
            changed = nested.answer({**predicted, **averaged(by_pass, names, pipeline.trials)})
            step = self._weigh("mc_dropout", self.evaluate(changed, answer), asked=True, price=float(len(names)))
            taken.append(replace(step, name=f"mc_dropout: {len(names)} passes"))
            answer, pipeline = changed, replace(pipeline, looks=names)
        sets = [names for names in TRANSFORM_SETS if len(names) > 1 and self.member_options.allows(pipeline.trials, len(names))]
        if "tta" in self.options.steps and not sets:
            raise ConfigError([Mistake("--step", f"tta takes more than {self.member_options.limit} with any transforms; leave it out")])
        if self._tried("tta") and sets and not self.options.mc_dropout:
            trials = tuple(dict.fromkeys((*nested.trials, *pipeline.trials)))
            others = dict.fromkeys(name for names in sets for name in names if name != "plain")
            by_transform = {"plain": predicted, **self.predict_validation(tuple(others), trials)}
            tried = {names: nested.answer(averaged(by_transform, names, trials)) for names in sets}
            evaluated = self.evaluate.each(tried, answer)
            names = self.evaluate.best(tried, evaluated)
            step = self._weigh("tta", evaluated[names], price=float(len(names)))
            taken.append(replace(step, name=f"tta: {', '.join(names)}"))
            if step.used:
                answer, pipeline = tried[names], replace(pipeline, looks=names)
        for name, fit in STEPS.items():
            if not self._tried(name):
                continue
            changed = crossfit_step(
                name, answer, self.evaluate.target, self.evaluate.groups, pipeline.scheme, self.evaluate.metric, self.parts
            )
            step = self._weigh(name, self.evaluate(changed, answer))
            taken.append(step)
            if step.used:
                fitted = fit(answer, self.evaluate.target, self.evaluate.groups, pipeline.scheme, self.evaluate.metric)
                answer, pipeline = changed, replace(pipeline, steps=(*pipeline.steps, fitted))
        return taken, pipeline, answer

    def _tried(self, name: str) -> bool:
        return name in self.options.steps or ("auto" in self.options.steps and name not in useless(self.evaluate.metric)[1])

    def _weigh(self, name: str, evaluated: Evaluated, asked: bool = False, **more: Any) -> StepTaken:
        asked = asked or name in self.options.steps
        return StepTaken(
            name, evaluated, asked, used=asked or evaluated.gain.interval[0] > 0 or is_free(name, self.evaluate.metric), **more
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """A decision, and what each of its answers is worth on the hold-out."""

    decision: Decision
    member_scores: tuple[float, ...]  # of each member on the hold-out
    answers: Mapping[str, np.ndarray]  # hold-out (images, classes) of every pipeline
    scores: Mapping[str, Score]  # likewise; gains are over SINGLE

    @property
    def answer(self) -> np.ndarray:
        return self.answers[self.decision.final]

    @property
    def score(self) -> Score:
        return self.scores[self.decision.final]


def score_on(decision: Decision, holdout: Sample, by_transform: Mapping[str, Predicted], seed: int) -> Outcome:
    """The outcome on held-out images; the seed draws the groups of the bootstrap.

    Args:
        by_transform: what the trials of the pipelines predict of them, by every transform that some pipeline takes.
    """
    scheme = decision.scheme
    answers = {name: pipeline(averaged(by_transform, pipeline.looks, pipeline.trials)) for name, pipeline in decision.pipelines.items()}
    return Outcome(
        decision=decision,
        member_scores=tuple(
            holdout.score(decision.metric, scheme, member.answer(by_transform["plain"])) for member in decision.lineup.members
        ),
        answers=answers,
        scores=score_answers(answers, holdout, scheme, decision.metric, seed),
    )


def answer_words(name: str) -> str:
    """An answer as it is called in a table."""
    if name.endswith(WITH_STEPS):
        return f"{answer_words(name.removesuffix(WITH_STEPS))} with its steps"
    return {SINGLE: SINGLE, "best": "best member", GREEDY_ALL: "greedy vote over all trials"}.get(name, f"{name} vote")


def step_words(name: str) -> str:
    """A step as it is called in a table."""
    return STEP_WORDS.get(name, name.replace("tta", "test-time augmentation").replace("mc_dropout", "Monte Carlo dropout"))

"""Ensembles put together by hand, for tests of what is done with one."""

from pathlib import Path

from analysis.evaluation.fitted_ensemble import EnsembleFile, Pipeline, write_ensemble
from analysis.members.compose import Member, Part
from analysis.members.trials import Trial, load_runs
from analysis.votes.voting import Mean


def alone(trial: Trial) -> Member:
    """The member that is one trial."""
    scheme = trial.task.scheme
    return Member(scheme, (Part(trial.name, scheme, scheme.names),))


def mean_of(trials: list[Trial]) -> Pipeline:
    """Trials that each answer for everything, and their mean."""
    return Pipeline(trials[0].task.scheme, tuple(map(alone, trials)), Mean((1 / len(trials),) * len(trials)))


def write(run: Path, pipeline: Pipeline) -> Path:
    """The folder of an ensemble of a run's trials."""
    models = {trial.name: tuple(str(file.relative_to(run.parent)) for file in trial.models) for trial in load_runs([run]).trials}
    folder = run / "ensemble"
    folder.mkdir(exist_ok=True)
    write_ensemble(folder, EnsembleFile({name: models[name] for name in pipeline.trials}, pipeline))
    return folder

"""A fitted answer: everything between what the trials predict and one class a photo, as plain values that a file can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import TypeAdapter, ValidationError

from analysis.calibration import Calibration
from analysis.compose import Member, Predicted
from analysis.ensemble import Ensemble
from analysis.steps import Step
from trainables.data.labels import Scheme
from trainables.record import RunError
from trainables.storage import Folder, write_whole

VERSION = 1
FILE = "ensemble.json"


@dataclass(frozen=True)
class Pipeline:
    """Members, their vote, and what comes before and after it."""

    scheme: Scheme
    members: tuple[Member, ...]
    ensemble: Ensemble
    looks: tuple[str, ...] = ("plain",)  # in LOOKS: what is averaged of each trial
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)  # by trial; empty: none is calibrated
    steps: tuple[Step, ...] = ()

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the trials that it takes."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.trials))

    def __call__(self, predicted: Predicted) -> np.ndarray:
        """Scores (photos, classes) whose rows sum to 1 and whose highest is the answer, of what the trials predict over its looks."""
        tempered = {
            name: self.calibrations[name](predicted[name]) if name in self.calibrations else predicted[name] for name in self.trials
        }
        answer = self.ensemble(np.stack([member.answer(tempered) for member in self.members]))
        for step in self.steps:
            answer = step(answer)
        return answer


@dataclass(frozen=True)
class EnsembleFile:
    """What `ensemble.json` holds."""

    version: int
    models: Mapping[str, tuple[str, ...]]  # by trial: its files of weights, from the folder that holds the runs, or by their addresses
    pipeline: Pipeline


ENSEMBLE_FILE = TypeAdapter(EnsembleFile)


def write_ensemble(folder: Folder, content: EnsembleFile) -> None:
    """Write the file, whole or not at all."""
    write_whole(folder / FILE, ENSEMBLE_FILE.dump_json(content, indent=1) + b"\n")


def read_ensemble(folder: Folder) -> EnsembleFile:
    """What an ensemble's folder holds. Raises: RunError, with the mend, where that is missing, damaged or of a newer version."""
    raise NotImplementedError

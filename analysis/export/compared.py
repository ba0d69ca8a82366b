"""What an exported network in smaller numbers is worth and costs beside the same in fp32, on the hold-out, in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

from analysis.command import decode
from analysis.evaluation.scoring import Score, score_answers
from analysis.export.onnx import ANSWER, Export
from analysis.export.parity import PASS, agreement
from analysis.members.predictions import Source, data_folder, labelled_source
from analysis.members.trials import EVERY_FOLD, Runs
from trainables.data.edges import with_edges
from trainables.data.layouts.reading import read_images
from trainables.progress import progress_bar
from trainables.record import RunError
from trainables.seeding import generator

CALIBRATED = 200  # training images, at most, that say which numbers occur
ALIKE = 0.01  # share by which two numbers may differ and be the same answer
ROUNDS, PASSES = 5, 10  # of timed passes; the fastest counts


@dataclass(frozen=True)
class Compared:
    """One file."""

    precision: str
    megabytes: float
    ms: float  # an image that comes alone
    changed: float  # share of the hold-out images whose answer is another one than in fp32
    score: Score  # its gain is over fp32

    @property
    def loses(self) -> bool:
        """Whether it is significantly worse than fp32."""
        return self.score.gain.interval[1] < 0

    def plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {**asdict(self), **self.score.gain.plain(), "loses": self.loses}

    def words(self, title: str) -> str:
        """What it is worth, in a sentence."""
        gain, (low, high) = self.score.gain.gain, self.score.gain.interval
        lead = f"{self.precision} loses significantly" if self.loses else f"{self.precision} is not significantly worse"
        changed = f"{self.changed:.1%} of the answers change"
        return f"{lead} against fp32: {title} {gain:+.3f} (95 % CI {low:+.3f} to {high:+.3f}) on the hold-out, {changed}."


@dataclass(frozen=True, eq=False)
class Material:
    """The images that an export is calibrated and compared with, by its inputs."""

    runs: Runs
    holdout: Mapping[str, np.ndarray]  # (n, height, width, channels) uint8
    calibration: Mapping[str, np.ndarray]
    named: tuple[str, ...]  # ids of the images of the calibration


def material_of(export: Export, runs: Runs) -> Material:
    """The images as the inputs of a network show them. Those of the calibration are drawn from the training part alone.

    Raises: RunError where the images are gone or are others than then.
    """
    images = read_images(data_folder(runs), runs.trials[0].record.config.data)
    files = decode(images, [one.view for one in export.inputs])
    learned = runs.learned
    train = np.arange(len(learned.ids)) if runs.part == EVERY_FOLD else np.flatnonzero(learned.parts != runs.part)
    chosen = learned.take(np.sort(generator(0, "export").permutation(train)[:CALIBRATED]))

    def shown(source: Source) -> dict[str, np.ndarray]:
        found = {}
        for one in export.inputs:
            pixels, rows = source.seen(one.view)
            found[one.name] = with_edges(pixels[rows]) if one.edges else pixels[rows]
        return found

    return Material(
        runs, shown(labelled_source(images, files, runs.holdout)), shown(labelled_source(images, files, chosen)), tuple(chosen.ids)
    )


def compare_all(export: Export, contents: Mapping[str, bytes], material: Material) -> list[Compared]:
    """What each file is worth and costs, the first of them that in fp32. Raises: RunError where ONNX Runtime cannot run one."""
    runs, scheme = material.runs, export.pipeline.scheme if export.pipeline else export.trials[0].task.scheme
    sessions = {name: _session(name, content) for name, content in contents.items()}
    count = len(runs.holdout.ids)
    answers: dict[str, np.ndarray] = {}
    with progress_bar("predicting the hold-out in each precision", count * len(sessions)) as progress:
        for name, session in sessions.items():
            parts: list[np.ndarray] = []
            for start in range(0, count, PASS):
                passed = {key: pixels[start : start + PASS] for key, pixels in material.holdout.items()}
                parts.append(np.asarray(session.run([ANSWER], passed)[0]))
                progress(len(parts[-1]))
            answers[name] = np.concatenate(parts).astype(float)
    scores = score_answers(answers, runs.holdout, scheme, runs.metric, seed=0)
    fastest = _fastest(list(sessions.values()), {key: pixels[:1] for key, pixels in material.holdout.items()})
    first = next(iter(answers.values()))
    return [
        Compared(name, len(contents[name]) / 1e6, ms, 1 - agreement(answers[name], first, scheme.kind, ALIKE), scores[name])
        for name, ms in zip(answers, fastest, strict=True)
    ]


def _session(name: str, content: bytes) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    # What ONNX Runtime raises has no class of its own.
    except Exception as error:
        raise RunError(f"--precision {name}: ONNX Runtime cannot run this network so ({str(error).splitlines()[0][:200]})") from None


def _fastest(sessions: Sequence[onnxruntime.InferenceSession], image: Mapping[str, np.ndarray]) -> list[float]:
    """Milliseconds of the fastest pass of one image, all measured in turn, as what else runs comes and goes."""
    found = [float("inf")] * len(sessions)
    for _ in range(ROUNDS):
        for place, session in enumerate(sessions):
            session.run([ANSWER], dict(image))
            for _ in range(PASSES):
                start = perf_counter()
                session.run([ANSWER], dict(image))
                found[place] = min(found[place], 1000 * (perf_counter() - start))
    return found

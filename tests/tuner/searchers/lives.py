"""Trials that were never trained: how they go, what a searcher hears of them, and what lies on disk of them."""

from pathlib import Path

import numpy as np

from search_spaces.read import read_space
from search_spaces.schema import nested
from trainables.config import TrialConfig
from trainables.record import Record, Result

SPACE = """
task: {choice: [joint, [[mask], [gender, age]]]}
model: {backbone: any}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 4.0], when: {loss/name: focal}}
optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}
train: {batch_size: {int: [16, 64], step: 16}}
start:
  - {task: [[mask], [gender, age]], loss: {name: focal, gamma: 2.0}, optimizer: {lr: 1.0e-2}, train: {batch_size: 48}}
  - {loss: {name: focal}}
  - {loss: {name: cross_entropy}}
"""
FIXED = {"epochs": 3, "seed": 0}
FULL_START = {
    "task": [["mask"], ["gender", "age"]],
    "loss/name": "focal",
    "loss/gamma": 2.0,
    "optimizer/lr": 1e-2,
    "train/batch_size": 48,
}
ENDINGS = ("finished", "stopped", "diverged", "memory", "crash")


def write_and_read(folder, text):
    (folder / "my.yaml").write_text(text)
    return read_space(folder / "my.yaml")


def tell(searcher, number, scores, ending):
    """Tell the searcher what Tune tells it of a trial."""
    results = [
        {"number": number, "epoch": epoch, "score": score, "best": max(scores[:epoch]), "last": False}
        for epoch, score in enumerate(scores, start=1)
    ]
    if ending == "finished":
        results[-1]["last"] = True
    # Of the report at which a trial is stopped Tune tells only at its end.
    for result in results[: -1 if ending == "stopped" else None]:
        searcher.on_trial_result(str(number), result)
    if ending == "crash":
        searcher.on_trial_complete(str(number), error=True)
    elif ending in ("diverged", "memory"):
        searcher.on_trial_result(str(number), {"number": number, "failed": "in words", "cause": ending})
        searcher.on_trial_complete(str(number), {"number": number, "failed": "in words", "cause": ending})
    else:
        searcher.on_trial_complete(str(number), results[-1])


def as_record(number, values, scores=(0.5,), ending="finished"):
    """What lies on disk of such a trial."""
    reports = [
        {"epoch": epoch, "score": score, "last": ending == "finished" and epoch == len(scores)}
        for epoch, score in enumerate(scores, start=1)
    ]
    best = int(np.argmax(scores)) + 1 if scores else 0
    cause = ending if ending in ("diverged", "memory", "crash") else ""
    result = Result("failed" if cause else ending, "in words", best, "split", "CPU", "0.1", cause=cause)
    return Record(Path("trials") / str(number), number, TrialConfig.from_values(values), tuple(reports), result)


def life(rng):
    """How a trial goes: its scores, and how it ends."""
    ending = str(rng.choice(ENDINGS, p=[0.4, 0.3, 0.1, 0.1, 0.1]))
    least = 1 if ending in ("finished", "stopped") else 0
    return rng.random(rng.integers(least, 4)).round(3).tolist(), ending


def config_with(**drawn):
    """Nested values of a trial of the space, with some drawn ones changed: `config_with(loss__name="focal")`."""
    values = {"task": "joint", "loss/name": "cross_entropy", "optimizer/lr": 1e-3, "train/batch_size": 32, "model/backbone": "any"}
    return nested(values | {path.replace("__", "/"): value for path, value in drawn.items()} | FIXED)

"""Files of a network in smaller numbers beside that in fp32, with what each is worth and costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.command import show_written, table
from analysis.evaluation.answering import device_of
from analysis.evaluation.fitted_ensemble import ensemble_hash
from analysis.evaluation.holdout import note_look, use_words
from analysis.evaluation.priced import Entry, note_priced
from analysis.evaluation.uncertainty import score_words
from analysis.export.compared import compare_all, material_of
from analysis.export.onnx import Export
from analysis.export.precision import half, integers
from analysis.members.trials import Runs
from trainables.progress import waiting
from trainables.record import write_json
from trainables.storage import Folder, write_atomically
from trainables.versions import device_name


def write_smaller(
    console: Console, file: Path, export: Export, asked: Sequence[str], runs: Runs, called: str, ensemble: Folder | None
) -> dict[str, Any]:
    """Write a network in smaller numbers beside its file, with what each is worth and costs; returns that as plain values.

    Args:
        file: that of the network in fp32.
        asked: fp16, int8.
        called: what answers.
        ensemble: its folder; None: it is a trial.
    Raises: RunError.
    """
    material = material_of(export, runs)
    contents = {"fp32": export.content}
    for precision in asked:
        with waiting(f"writing {precision}"):
            found = half(export.content) if precision == "fp16" else integers(export.content, material.calibration)
        contents[precision] = found
    compared = compare_all(export, contents, material)
    of = ensemble_hash(ensemble) if ensemble else ""
    device = device_name(device_of("cpu"))
    # From here on nothing is computed, and nothing is shown before it is written.
    asked_of = {"exported": called, "precision": list(asked), "of": of[:16], "runs": [str(folder) for folder in runs.folders]}
    looked = note_look(runs.folders, asked_of)
    written = [file.with_stem(f"{file.stem}-{name}") for name in asked]
    for one, name in zip(written, asked, strict=True):
        write_atomically(one, contents[name])
    values = {
        "precisions": [one.plain() for one in compared],
        "metric": runs.metric.name,
        "measured_on": f"{device}, ONNX Runtime",
        "calibration": {"images": len(material.named), "part": "train", "ids": list(material.named)} if "int8" in asked else None,
    }
    report = file.with_name(f"{file.stem}-precision.json")
    write_json(report, values)
    note_priced(
        runs.folders[0],
        [
            Entry(f"{called}, {one.precision}", "exported file", one.score.score, one.score.interval, one.ms, one.megabytes, device, of)
            for one in compared
        ],
    )
    rows = [
        (one.precision, score_words(one.score.score, one.score.interval), f"{one.changed:.1%}", f"{one.ms:.3g}", f"{one.megabytes:.3g}")
        for one in compared
    ]
    heads = (f"{runs.metric.title} (95 % CI)", "answers changed", "ms an image", "MB")
    console.print(table(f"On the hold-out ({len(runs.holdout.ids):,} images), ONNX Runtime on the CPU", ("precision",), heads, rows))
    for one in compared[1:]:
        console.print(one.words(runs.metric.title), style="red" if one.loses else None, soft_wrap=True)
    if "int8" in asked:
        console.print(f"int8 is calibrated on {len(material.named)} training images, which {report} names.", soft_wrap=True)
    if words := use_words(looked):
        console.print(words, soft_wrap=True)
    show_written(console, [*written, report])
    return {**values, "files": [*written, report]}

"""The command: an ensemble, or one trial's model, as an ONNX file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from analysis.command import read_runs, refusals, run_folders, show_written, warn
from analysis.evaluation.exported import FILE as ONNX
from analysis.evaluation.fitted_ensemble import FILE, ensemble_hash, folder_of, read_ensemble, read_trial_models, run_of
from analysis.evaluation.novelty import FILE as NOVELTY
from analysis.evaluation.novelty import read_novelty
from analysis.evaluation.worth import read_worth
from analysis.members.mc_dropout import has_passes
from analysis.members.predictions import PLAIN, TrialModels
from analysis.pages.model_card import CARD as MODEL_CARD
from trainables.commands import program
from trainables.console import document, output
from trainables.options import AsJson, TrustCode
from trainables.progress import waiting
from trainables.record import MODEL, RunError, list_trials, trial_folder
from trainables.registry import choose
from trainables.storage import Folder, open_folder, write_atomically

if TYPE_CHECKING:
    from analysis.export.onnx import Export
    from analysis.export.parity import Parity

PRECISIONS = ("fp16", "int8")

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    ensemble: Annotated[str | None, typer.Option(help="The folder of an ensemble, runs/<run>/ensemble, or its address.")] = None,
    run: Annotated[str | None, typer.Option(help="Instead of an ensemble: a run's name in runs/, its folder, or its address.")] = None,
    trial: Annotated[int | None, typer.Option(help="The number of the trial of that run.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for ensemble.onnx; for a trial, the file to write.")] = Path("."),
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Write it in smaller numbers, too: fp16, or int8, whose scales come of some training images; repeat it for both. "
            "Each is scored beside fp32 on the hold-out.",
            show_default=False,
        ),
    ] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write an ensemble as one ONNX file, or one trial's model.

    The file takes images as their view shows them, uint8 (images, height, width, channels), and answers with probabilities: what lies
    between, normalisation and vote included, is inside. Its metadata say, as JSON under `card`, what the classes are and which view each
    input takes. It is compared with PyTorch before it is written. The model card, and what tells images
    unlike anything learned, are written beside it: analysis.demo serves the folder, without PyTorch.

        python -m analysis.export --ensemble runs/faces/ensemble --out exported

        python -m analysis.export --run faces --trial 7 --out faces-7.onnx

    In smaller numbers a network is smaller and often faster, and its answers change a little: how many of them, and what that costs, the
    hold-out says. That is written down as a use of it.

        python -m analysis.export --ensemble runs/faces-student/ensemble --out exported --precision int8 --precision fp16
    """
    console = output()
    asked = tuple(dict.fromkeys(precision or ()))
    compared: dict[str, Any] = {}
    with refusals():
        for name in asked:
            choose(dict.fromkeys(PRECISIONS), name, "--precision")
        if ensemble is not None and run is None and trial is None:
            folder = open_folder(ensemble)
            runs = read_runs([str(run_with_images(folder))]) if asked else None
            found = export_ensemble(console, folder, out)
            called = runs.folders[0].resolve().name if runs else ""
        elif ensemble is None and run is not None and trial is not None:
            runs = read_runs([run]) if asked else None
            found = [export_trial(console, run, trial, out)]
            called, folder = found[0].name, None
        else:
            raise RunError("give either --ensemble with the folder of an ensemble, or --run and --trial")
        if runs and found[0].parity.holds:
            if folder is not None and found[0].export.pipeline is None:
                raise RunError("--precision is for an ensemble that is one file; this one is written as its single models. Leave it out")
            from analysis.export.smaller import write_smaller

            compared = write_smaller(console, found[0].file, found[0].export, asked, runs, called, folder)
    models = [{"file": str(one.file), "written": one.parity.holds, **asdict(one.parity)} for one in found]
    document({"models": models, **compared})
    if not all(one.parity.holds for one in found):
        raise typer.Exit(1)


def run_with_images(folder: Folder) -> Folder:
    """The run of an ensemble, whose images calibrate and score what is written in smaller numbers. Raises: RunError."""
    folder = folder_of(folder)
    run = run_of(folder)
    if not (run / "run.json").is_file():
        words = "--precision compares on a hold-out, and int8 is calibrated with training images: give the ensemble's own folder"
        raise RunError(f"{folder} lies in no run. {words}, runs/<run>/ensemble")
    return run


@dataclass(frozen=True)
class Checked:
    """A model that was compared with PyTorch; its file is there where it answers alike."""

    file: Path
    parity: "Parity"
    export: "Export"

    @property
    def name(self) -> str:
        """Of its trials."""
        return ", ".join(trial.name for trial in self.export.trials)


def export_trial(console: Console, run: str, number: int, out: Path) -> Checked:
    """Write the model of one record. Raises: RunError."""
    (folder,) = run_folders([run])
    numbers = [one.name for one in list_trials(folder)]
    mistakes = []
    if str(number) not in numbers:
        mistakes.append(f"{folder} has no trial {number}; there are {', '.join(numbers) or 'none'}")
    elif not (trial_folder(folder, number) / MODEL).is_file():
        mistakes.append(f"trial {number} of {folder} has no weights: run/keep says how many trials keep theirs. Choose another trial.")
    if out.is_dir() or not out.parent.is_dir():
        mistakes.append(f"--out {out}: give the name of a file in a folder that is there, such as {folder.resolve().name}-{number}.onnx")
    if mistakes:
        raise RunError("\n".join(mistakes))
    trial = TrialModels.read(f"{folder.resolve().name}/{number}", [trial_folder(folder, number) / MODEL])
    return write_checked(console, exported(trial), out)


def exported(*wanted: Any) -> "Export":
    """A trial's models, or a pipeline, its trials and where they are from, in the format of ONNX. Raises: RunError."""
    with waiting("exporting to ONNX"):
        from analysis.export.onnx import export_models, export_pipeline

        return export_models(*wanted) if len(wanted) == 1 else export_pipeline(*wanted)


def export_ensemble(console: Console, folder: Folder, out: Path) -> list[Checked]:
    """Write a whole ensemble; the models of its trials alone where ONNX cannot express one of its parts. Raises: RunError."""
    if folder.name == FILE:
        folder = folder.parent
    content = read_ensemble(folder)
    trials = read_trial_models(folder, content)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: no folder can be made there ({error.strerror}); give another one") from None
    if why := not_one_file(content.pipeline.looks, trials):
        warn(console, f"{why}: the whole cannot be one file. The models of its trials are written alone.")
        files = [(trial, out / f"{trial.name.replace('/', '-')}.onnx") for trial in trials]
        # Each is written, even if others fail.
        return [write_checked(console, exported(trial), file) for trial, file in files]
    novelty = read_novelty(folder, ensemble_hash(folder))
    watched = {name: one.model for name, one in novelty.learned.items()} if novelty else {}
    # Imports torch, as all that follows does.
    with waiting("importing torch"):
        from analysis.export.onnx import Origin

    origin = Origin(read_worth(folder, content.pipeline.scheme), ensemble_hash(folder), watched)
    found = write_checked(console, exported(content.pipeline, trials, origin), out / ONNX)
    beside = [name for name in (MODEL_CARD, *([NOVELTY] if novelty else [])) if (folder / name).is_file()]
    if found.parity.holds and out.resolve() != folder.resolve():
        for name in beside:
            write_atomically(out / name, (folder / name).read_bytes())
        if beside:
            show_written(console, [out / name for name in beside])
    return [found]


def not_one_file(looks: Sequence[str], trials: Sequence[TrialModels]) -> str:
    """Why ONNX cannot hold all that answers, in words; empty where it can."""
    edged = [trial.name for trial in trials if trial.edges]
    if has_passes(looks):
        return f"The ensemble averages {len(looks)} passes of Monte Carlo dropout, and an exported network leaves nothing out"
    if edged and tuple(looks) != PLAIN:
        words = f"The ensemble uses test-time augmentation ({', '.join(looks)}), and {', '.join(edged)} needs the edges of each"
        return f"{words}, which are found outside a network"
    return ""


def write_checked(console: Console, export: "Export", out: Path) -> Checked:
    """Compare a network with PyTorch and write it, if it answers alike; says which of them, and how to use the file."""
    with waiting("comparing with PyTorch"):
        from analysis.export.onnx import ANSWER
        from analysis.export.parity import AGREEMENT, TOLERANCE, compare

        parity = compare(export)
    console.print(str(parity), soft_wrap=True)
    if not parity.holds:
        words = f"That is no faithful copy (at most {TOLERANCE:g}, at least {AGREEMENT:.1%}): {out} is not written."
        console.print(words, style="red", soft_wrap=True)
        return Checked(out, parity, export)
    try:
        write_atomically(out, export.content)
    except OSError as error:
        raise RunError(f"--out {out} cannot be written ({error.strerror or error}); write elsewhere, or make room") from None
    for one in export.inputs:
        console.print(f"Takes {one}", soft_wrap=True)
    given = ", ".join(f"'{one.name}': {one.name}" for one in export.inputs)
    console.print(f"Use: onnxruntime.InferenceSession('{out}').run(['{ANSWER}'], {{{given}}})", soft_wrap=True)
    show_written(console, [f"{out} ({len(export.content) / 1e6:.1f} MB)"])
    return Checked(out, parity, export)


if __name__ == "__main__":
    app(prog_name=program("analysis.export"))

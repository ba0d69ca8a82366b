"""`python -m analysis.export --ensemble runs/faces/ensemble --out folder`: an ensemble, or one trial's model, as an ONNX file."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import typer
from PIL import Image
from rich.console import Console

from analysis.command import refusals
from analysis.network import PipelineNetwork, TrialNetwork
from analysis.pipeline import FILE, Pipeline, read_ensemble
from analysis.predictions import PLAIN, Source, TrialModels, predict_trials, read_trial_models
from trainables.checkpoint import load_model
from trainables.console import output
from trainables.data.edges import with_edges
from trainables.data.labels import Scheme
from trainables.data.photos import Unlabelled
from trainables.data.views import View, ViewFiles, build_views, open_view
from trainables.models.assemble import Classifier
from trainables.record import MODEL, RunError, find_run, list_trials, trial_folder
from trainables.seeding import generator
from trainables.storage import Folder, local_file, open_folder, write_whole

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
OPSET = 20
LARGEST = 2**31 - 1  # bytes of a file in the format of ONNX
PHOTOS = 200  # drawn ones, on which a file is compared with PyTorch
PASS = 64  # of them at a time; the last pass is smaller, so the number of photos is seen to be free
TOLERANCE = 1e-4  # the largest difference of two probabilities
AGREEMENT = 0.999  # the least share of photos with the same answer
ANSWER = "probabilities"


@app.command()
def main(
    ensemble: Annotated[str | None, typer.Option(help="The folder of an ensemble, runs/<run>/ensemble, or its address.")] = None,
    run: Annotated[str | None, typer.Option(help="Instead of an ensemble: a run's name in runs/, its folder, or its address.")] = None,
    trial: Annotated[int | None, typer.Option(help="The number of the trial of that run.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for ensemble.onnx; for a trial, the file to write.")] = Path("."),
) -> None:
    """Write an ensemble as one ONNX file, or one trial's model.

    The file takes photos as their view shows them, uint8 (photos, height, width, channels), and answers with probabilities: what lies
    between, normalisation and vote included, is inside. Its metadata say, as JSON under `card`, what the classes are and which view each
    input wants. It is compared with PyTorch before it is written.

        python -m analysis.export --ensemble runs/faces/ensemble --out exported

        python -m analysis.export --run faces --trial 7 --out faces-7.onnx
    """
    console = output()
    with refusals():
        if (ensemble is None) == (run is None) or (run is None) != (trial is None):
            raise RunError("give either --ensemble with the folder of an ensemble, or --run and --trial")
        right = export_trial(console, run, trial, out) if ensemble is None else export_ensemble(console, open_folder(ensemble), out)
    if not right:
        raise typer.Exit(1)


def export_trial(console: Console, run: str, number: int, out: Path) -> bool:
    """Write the model of one record. Returns whether it answers as PyTorch does. Raises: RunError."""
    folder = find_run(run)
    numbers = [one.name for one in list_trials(folder)]
    mistakes = []
    if str(number) not in numbers:
        mistakes.append(f"{folder} has no trial {number}; there are {', '.join(numbers) or 'none'}")
    elif not (trial_folder(folder, number) / MODEL).is_file():
        mistakes.append(f"trial {number} of {folder} has no weights: run/keep says of how many trials they are kept. Take another one.")
    if out.is_dir() or not out.parent.is_dir():
        mistakes.append(f"--out {out}: give the name of a file in a folder that is there, such as {folder.resolve().name}-{number}.onnx")
    if mistakes:
        raise RunError("\n".join(mistakes))
    trial = TrialModels.read(f"{folder.resolve().name}/{number}", [trial_folder(folder, number) / MODEL])
    return write_checked(console, export_models(trial), out)


def export_ensemble(console: Console, folder: Folder, out: Path) -> bool:
    """Write a whole ensemble; the models of its trials alone where a kind of it cannot be said in ONNX. Returns as above.

    Raises: RunError.
    """
    if folder.name == FILE:
        folder = folder.parent
    content = read_ensemble(folder)
    trials = read_trial_models(folder, content)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: no folder can be made there ({error.strerror}); give another one") from None
    edged = [trial.name for trial in trials if trial.edges]
    if edged and content.pipeline.looks != PLAIN:
        words = (
            f"The ensemble looks at photos in several ways ({', '.join(content.pipeline.looks)}), and {', '.join(edged)} wants the edges"
        )
        words += " of each, which are found outside a network: the whole cannot be one file. The models of its trials are written alone."
        console.print(words, style="yellow", markup=False, soft_wrap=True)
        files = [(trial, out / f"{trial.name.replace('/', '-')}.onnx") for trial in trials]
        # Each is written, whatever becomes of the others.
        return all([write_checked(console, export_models(trial), file) for trial, file in files])
    return write_checked(console, export_pipeline(content.pipeline, trials), out / "ensemble.onnx")


@dataclass(frozen=True)
class Input:
    """One batch of photos that a network takes."""

    name: str
    view: View
    edges: bool  # whether Canny edges are a fourth channel

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels of a photo."""
        return self.view.height, self.view.width, 4 if self.edges else 3

    def plain(self) -> dict[str, Any]:
        """The input as JSON knows it."""
        return {
            "name": self.name,
            "shape": ["photos", *self.shape],
            "edges": self.edges,
            "view": asdict(self.view),
            "shows": str(self.view),
        }

    def __str__(self) -> str:
        channels = "RGB and Canny edges as trainables.data.edges finds them" if self.edges else "RGB"
        return f"{self.name}: uint8 (photos, {', '.join(map(str, self.shape))}), {channels}, of the view {self.view}"


@dataclass(frozen=True, eq=False)
class Export:
    """A network in the format of ONNX, and what it must answer."""

    content: bytes
    inputs: tuple[Input, ...]
    trials: tuple[TrialModels, ...]
    pipeline: Pipeline | None  # None: of one trial alone


def export_models(trial: TrialModels) -> Export:
    """The mean of a trial's models. Raises: RunError."""
    one = Input("photos", trial.view, trial.edges)
    network = TrialNetwork(_load(trial), trial.task, precision=torch.float32)
    return Export(to_onnx(network, [one], [ANSWER], card(trial.task.scheme, [one], {ANSWER: trial.name})), (one,), (trial,), None)


def export_pipeline(pipeline: Pipeline, trials: Sequence[TrialModels]) -> Export:
    """All trials of a pipeline and what it makes of their probabilities. Raises: RunError."""
    wanted = {trial.name: (trial.view, trial.edges) for trial in trials}
    distinct = list(dict.fromkeys(wanted.values()))
    inputs = tuple(Input("photos" if len(distinct) == 1 else f"photos_{number}", *one) for number, one in enumerate(distinct))
    networks = {trial.name: TrialNetwork(_load(trial), trial.task, pipeline.looks) for trial in trials}
    network = PipelineNetwork(pipeline, networks, {name: distinct.index(one) for name, one in wanted.items()})
    outputs = {ANSWER: "the answer", **{name: f"what {name} says" for name in pipeline.trials}}
    return Export(to_onnx(network, inputs, list(outputs), card(pipeline.scheme, inputs, outputs)), inputs, tuple(trials), pipeline)


def card(scheme: Scheme, inputs: Sequence[Input], outputs: dict[str, str]) -> dict[str, Any]:
    """What a file says about itself."""
    return {
        "attributes": [{"name": attribute.name, "values": list(attribute.values)} for attribute in scheme.attributes],
        "classes": scheme.class_names(),
        "inputs": [one.plain() for one in inputs],
        "outputs": outputs,
    }


def to_onnx(network: torch.nn.Module, inputs: Sequence[Input], outputs: Sequence[str], about: dict[str, Any]) -> bytes:
    """The network in the format of ONNX, for any number of photos. Raises: RunError when it cannot be said in it."""
    network.eval()
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > LARGEST:
        raise RunError(f"the weights take {size / 1e9:.1f} GB, and an ONNX file holds {LARGEST / 1e9:.1f}; let fewer members vote")
    batch = torch.export.Dim("photos")
    examples = tuple(torch.zeros((2, *one.shape), dtype=torch.uint8) for one in inputs)
    shapes = tuple({0: batch} for _ in inputs)
    try:
        with warnings.catch_warnings():
            # Of torch about its own inside.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=[one.name for one in inputs],
                output_names=list(outputs),
                # A network that takes any number of inputs has them as one argument.
                dynamic_shapes=(shapes,) if isinstance(network, PipelineNetwork) else shapes,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RunError(f"the network cannot be said in ONNX ({' '.join(str(error).split())[:300]})") from None
    program.model.metadata_props["card"] = json.dumps(about)
    return program.model_proto.SerializeToString()


@dataclass(frozen=True)
class Parity:
    """How alike ONNX Runtime and PyTorch answer."""

    photos: int
    difference: float  # the largest of two probabilities
    agreement: float  # share of photos with the same answer

    @property
    def holds(self) -> bool:
        return self.difference < TOLERANCE and self.agreement >= AGREEMENT

    def __str__(self) -> str:
        same = f"the answers to {self.agreement:.1%} of {self.photos} photos are the same"
        return f"ONNX Runtime against PyTorch: probabilities differ by at most {self.difference:.1e}, {same}"


def compare(export: Export) -> Parity:
    """What ONNX Runtime answers to drawn photos, against what the trials and the pipeline answer.

    Votes and steps decide at thresholds, where the last bits of a network's probability tip a photo. So each trial's probabilities are
    compared with those of PyTorch, and the answer with what the pipeline makes of the trials' probabilities in ONNX Runtime; whether
    photos get the same answer is asked from end to end.
    """
    session = onnxruntime.InferenceSession(export.content, providers=["CPUExecutionProvider"])
    looks = export.pipeline.looks if export.pipeline else PLAIN
    with TemporaryDirectory() as scratch:
        files = draw_views([one.view for one in export.inputs], Path(scratch))
        expected = predict_trials(export.trials, Source(files, list(files.digests)), torch.device("cpu"), looks=looks)
        photos = {one.name: _photos(one, files) for one in export.inputs}
    passes = [
        session.run(None, {name: images[start : start + PASS] for name, images in photos.items()}) for start in range(0, PHOTOS, PASS)
    ]
    answer, *rest = (np.concatenate(parts) for parts in zip(*passes, strict=True))
    if export.pipeline is None:
        (right,) = expected.values()
        return Parity(PHOTOS, float(np.abs(answer - right).max()), float((answer.argmax(axis=1) == right.argmax(axis=1)).mean()))
    found = dict(zip(export.pipeline.trials, rest, strict=True))
    difference = max(np.abs(found[name] - expected[name]).max() for name in found)
    difference = max(difference, np.abs(answer - export.pipeline(found)).max())
    agreement = (answer.argmax(axis=1) == export.pipeline(expected).argmax(axis=1)).mean()
    return Parity(PHOTOS, float(difference), float(agreement))


def draw_views(views: Sequence[View], folder: Path) -> ViewFiles:
    """Views of photos that show soft spots of colour and grain; there are no faces in them."""
    rng = generator(0, "export")
    names = tuple(f"{number}.png" for number in range(PHOTOS))
    for name in names:
        spots = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize((180, 240), Image.Resampling.BICUBIC)
        grain = rng.normal(0, rng.uniform(0, 30), (240, 180, 3))
        Image.fromarray(np.clip(np.asarray(spots) + grain, 0, 255).astype(np.uint8)).save(folder / name)
    return build_views(Unlabelled(folder, names), views, folder / "views", find=lambda photo: None)


def write_checked(console: Console, export: Export, out: Path) -> bool:
    """Compare a network with PyTorch and write it, if it answers alike; says which of them, and how to use the file."""
    parity = compare(export)
    console.print(str(parity), markup=False, soft_wrap=True)
    if not parity.holds:
        words = f"That is no faithful copy (at most {TOLERANCE:g}, at least {AGREEMENT:.1%}): {out} is not written."
        console.print(words, style="red", markup=False, soft_wrap=True)
        return False
    try:
        write_whole(out, export.content)
    except OSError as error:
        raise RunError(f"--out {out} cannot be written ({error.strerror or error}); write elsewhere, or make room") from None
    for one in export.inputs:
        console.print(f"Takes {one}", markup=False, soft_wrap=True)
    given = ", ".join(f"'{one.name}': {one.name}" for one in export.inputs)
    console.print(f"Use: onnxruntime.InferenceSession('{out}').run(['{ANSWER}'], {{{given}}})", markup=False, soft_wrap=True)
    console.print(f"Written: {out} ({len(export.content) / 1e6:.1f} MB)", markup=False, soft_wrap=True)
    return True


def _photos(one: Input, files: ViewFiles) -> np.ndarray:
    seen = open_view(files.files[one.view])
    images = seen.images[seen.rows(files.digests)]
    return with_edges(images) if one.edges else images


def _load(trial: TrialModels) -> list[Classifier]:
    models = []
    for file in trial.models:
        with local_file(file) as local:
            models.append(load_model(local)[0])
    return models


if __name__ == "__main__":
    app(prog_name="python -m analysis.export")

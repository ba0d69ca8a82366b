"""A trial's models, or all trials of an ensemble and its vote, in the format of ONNX."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from analysis.evaluation.exported import ANSWER, FORMAT
from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.worth import Worth
from analysis.export.network import PipelineNetwork, TrialNetwork
from analysis.members.predictions import PLAIN, TrialModels
from trainables.checkpoint import load_model
from trainables.data.targets import Scheme
from trainables.data.views import View
from trainables.models.assemble import Classifier
from trainables.record import RunError
from trainables.storage import local_file

OPSET = 20
LARGEST = 2**31 - 1  # bytes of a file in the format of ONNX


@dataclass(frozen=True)
class Input:
    """One batch of images that a network takes."""

    name: str
    view: View
    edges: bool  # whether Canny edges are a fourth channel

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels of an image."""
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
        return f"{self.name}: uint8 (images, {', '.join(map(str, self.shape))}), {channels}, of the view {self.view}"


@dataclass(frozen=True)
class Origin:
    """What is exported, as the file says it."""

    worth: Worth
    ensemble: str = ""  # hash of the ensemble's file
    watched: Mapping[str, int] = field(default_factory=dict)  # by trial: which of its models tells images unlike anything learned


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
    about = card(trial.task.scheme, [one], {ANSWER: trial.name}, [trial], PLAIN, Origin(Worth(trial.name)))
    return Export(to_onnx(network, [one], [ANSWER], about), (one,), (trial,), None)


def export_pipeline(pipeline: Pipeline, trials: Sequence[TrialModels], origin: Origin | None = None) -> Export:
    """All trials of a pipeline and what it makes of their probabilities. Raises: RunError."""
    origin = origin or Origin(Worth("ensemble"))
    wanted = {trial.name: (trial.view, trial.edges) for trial in trials}
    distinct = list(dict.fromkeys(wanted.values()))
    inputs = tuple(Input("photos" if len(distinct) == 1 else f"photos_{number}", *one) for number, one in enumerate(distinct))
    networks = {trial.name: TrialNetwork(_load(trial), trial.task, pipeline.looks) for trial in trials}
    watched = {name: origin.watched[name] for name in pipeline.trials if name in origin.watched}
    network = PipelineNetwork(pipeline, networks, {name: distinct.index(one) for name, one in wanted.items()}, watched)
    features = {f"features of {name}": f"what lies before the heads of {name}, of its model {number}" for name, number in watched.items()}
    outputs = {ANSWER: "the answer", **{name: f"what {name} says" for name in pipeline.trials}, **features}
    about = card(pipeline.scheme, inputs, outputs, trials, pipeline.looks, origin)
    return Export(to_onnx(network, inputs, list(outputs), about), inputs, tuple(trials), pipeline)


def card(
    scheme: Scheme,
    inputs: Sequence[Input],
    outputs: dict[str, str],
    trials: Sequence[TrialModels],
    looks: Sequence[str],
    origin: Origin,
) -> dict[str, Any]:
    """What a file says about itself."""
    return {
        "format": FORMAT,
        "targets": [target.plain() for target in scheme.targets],
        "trials": len(trials),
        "models": sum(len(trial.models) for trial in trials),
        "transforms": list(looks),
        "worth": origin.worth.plain(),
        "ensemble": origin.ensemble,
        "features": {name: f"features of {name}" for name in origin.watched if f"features of {name}" in outputs},
        "attributes": [{"name": target.name, "values": list(target.values)} for target in scheme.targets],
        "classes": scheme.class_names(),
        "inputs": [one.plain() for one in inputs],
        "outputs": outputs,
    }


def to_onnx(network: torch.nn.Module, inputs: Sequence[Input], outputs: Sequence[str], about: dict[str, Any]) -> bytes:
    """The network in the format of ONNX, for any number of images. Raises: RunError when it cannot be said in it."""
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
            # pyrefly: ignore[bad-assignment]  None comes of the exporter before this one alone
            program: torch.onnx.ONNXProgram = torch.onnx.export(
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
        raise RunError(f"the network cannot be expressed in ONNX ({' '.join(str(error).split())[:300]})") from None
    program.model.metadata_props["card"] = json.dumps(about)
    return program.model_proto.SerializeToString()


def _load(trial: TrialModels) -> list[Classifier]:
    models = []
    for file in trial.models:
        with local_file(file) as local:
            models.append(load_model(local)[0])
    return models

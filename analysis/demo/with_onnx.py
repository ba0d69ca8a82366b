"""An exported ensemble as what answers on the page: by ONNX Runtime, without PyTorch."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from analysis.demo.answers import Facts, Scored
from analysis.evaluation.exported import ANSWER, FILE, FORMAT
from analysis.evaluation.novelty import read_novelty
from analysis.evaluation.worth import Worth
from trainables.data.edges import with_edges
from trainables.data.targets import Scheme, read_target
from trainables.data.views import CROPS, View
from trainables.record import RunError
from trainables.storage import Folder
from trainables.versions import code_version

NEEDED = {"opencv-python-headless": "cv2", "facenet-pytorch": "facenet_pytorch"}  # module by what is installed
AGAIN = "Export it again: python -m analysis.export --ensemble RUN/ensemble --out exported"


def exported_file(place: Folder) -> Folder | None:
    """The exported ensemble that a path names, or that lies in its folder; None where it is another thing."""
    if place.name.endswith(".onnx"):
        return place
    return place / FILE if (place / FILE).is_file() and not (place / "ensemble.json").is_file() else None


class WithOnnx:
    """An exported ensemble on the CPU, for one thread at a time."""

    def __init__(self, file: Folder):
        """Raises: RunError where the file is gone, damaged, of no ensemble, of a newer format, or needs what cannot be had here."""
        self._session = _open(file)
        text = self._session.get_modelmeta().custom_metadata_map.get("card", "{}")
        self._card: dict[str, Any] = json.loads(text)
        if self._card.get("format", 0) > FORMAT:
            raise RunError(f"{file} was exported by a newer version of sweepvote. Update sweepvote, or serve the ensemble itself")
        try:
            self.scheme = Scheme(tuple(map(read_target, self._card["targets"])))
            inputs = self._card["inputs"]
            views = [TypeAdapter(View).validate_python(one["view"]) for one in inputs]
            self._inputs = [(one["name"], view, one["edges"]) for one, view in zip(inputs, views, strict=True)]
            self._worth = Worth.read(self._card["worth"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file} does not say what it answers ({type(error).__name__}: {error}). {AGAIN}") from None
        self.views = list(dict.fromkeys(view for _, view, _ in self._inputs))
        _refuse_missing(file, self.views, any(edges for *_, edges in self._inputs))
        self.novelty = read_novelty(file.parent, self._card["ensemble"])
        self._features: dict[str, str] = self._card["features"]

    def predict(self, images: Mapping[View, np.ndarray], names: Sequence[str]) -> Scored:
        """As of `Answers`."""
        given = {name: with_edges(images[view]) if edges else images[view] for name, view, edges in self._inputs}
        watched = self._features if self.novelty else {}
        scores, *features = self._session.run([ANSWER, *watched.values()], given)
        if not self.novelty:
            return Scored(scores, None)
        far = [self.novelty.learned[name].distances(seen) for name, seen in zip(watched, features, strict=True)]
        return Scored(scores, np.mean(far, axis=0))

    def heat_maps(self, questions: object, images: object, places: object, side: int) -> None:
        """None: the file has no gradients."""

    def facts(self) -> Facts:
        """As of `Answers`."""
        libraries = ("onnxruntime", "numpy", "pillow")
        return Facts(
            worth=self._worth,
            trials=self._card["trials"],
            models=self._card["models"],
            transforms=self._card["transforms"],
            heat_maps=False,
            device=f"ONNX Runtime, CPU ({platform.machine()})",
            versions={"sweepvote": code_version(), "python": platform.python_version(), **{name: version(name) for name in libraries}},
        )


def _open(file: Folder) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    if not file.is_file():
        raise RunError(f"{file} is not there. {AGAIN}")
    try:
        return onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its errors have no base class of their own.
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise RunError(f"{file} is no ONNX file that can be read ({' '.join(str(error).split())[:200]}). {AGAIN}") from None


def _refuse_missing(file: Folder, views: Sequence[View], edges: bool) -> None:
    """Raises: RunError naming what the images need that cannot be had here."""
    own = [view.crop for view in views if view.crop not in CROPS]
    mistakes = [f"{file}: crop {crop} is of somebody's own code, which is not in this file; serve the ensemble itself" for crop in own]
    if edges and not find_spec(NEEDED["opencv-python-headless"]):
        mistakes.append(f"{file} takes a channel of edges: pip install opencv-python-headless")
    if any(view.crop in CROPS and view.needs_face for view in views) and not find_spec(NEEDED["facenet-pytorch"]):
        words = "its images are cut around a face, which MTCNN finds, and that runs on PyTorch alone"
        mistakes.append(f"{file}: {words}; serve the ensemble itself where torch and facenet-pytorch are installed")
    if mistakes:
        raise RunError("\n".join(mistakes))

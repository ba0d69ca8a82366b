"""Heat maps: which parts of an image raise what a trial says of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.members.predictions import Load, Shown, Source, load_once
from trainables.card import Card
from trainables.data.edges import with_edges
from trainables.data.faces import Box
from trainables.data.targets import Scheme, Task
from trainables.data.views import Size, View, area_of
from trainables.record import DAMAGE
from trainables.storage import Folder

if TYPE_CHECKING:
    import torch

    from trainables.models.assemble import Classifier
    from trainables.models.spatial import Layer

PASS = 16  # questions that go through a model at a time


@dataclass(frozen=True)
class Question:
    """What a heat map is of: one value of one target of one image."""

    image: str  # its id in the source
    target: str
    value: int  # among the target's values: a class or a tag; 0 for a number

    def words(self, scheme: Scheme) -> str:
        """The target and its value as a caption has them."""
        (target,) = scheme.part((self.target,)).targets
        return self.target if target.kind == "number" else f"{self.target}: {target.values[self.value]}"


@dataclass(frozen=True)
class Place:
    """What of an image a view shows."""

    size: Size  # of the upright image, in pixels
    faces: Mapping[View, Box | None]  # what each view was cut around


@dataclass(frozen=True)
class Asked:
    """One model, the questions that it is asked, and what its maps count."""

    trial: str
    file: Folder  # of weights
    questions: Mapping[Question, float]  # each with the weight of this model's map


@dataclass(frozen=True, eq=False)
class Maps:
    """Heat maps on whole images, and why some models have none."""

    maps: Mapping[Question, np.ndarray]  # (height, width) float32 from 0 to 1, on the image with its longer side at most SIDE
    problems: tuple[str, ...]


def heat_maps(
    asked: Sequence[Asked],
    source: Source | Shown,
    places: Mapping[str, Place],
    side: int,
    device: "torch.device",
    progress: Callable[[int], None] = lambda questions: None,
    load: Load = load_once,
) -> Maps:
    """For each question the weighted mean of the maps of the models that are asked it, each laid where its view lies on the image.

    A model's map is scaled to 0 to 1 before the mean, so that one with large logits does not drown the others; so is the mean. What no view
    shows is 0. A model that cannot be read, has no layer that is a map of the image, or does not fit the device, is named, and the
    mean is that of the others. A question that no model could answer has no map.

    Args:
        places: by image.
        side: pixels of the longer side of a map.
        progress: called with the number of questions that a model is done with.
    """
    import torch

    from trainables.models.spatial import NoMapError

    sums: dict[Question, np.ndarray] = {}
    problems: dict[str, None] = {}
    for one in asked:
        questions = list(one.questions)
        try:
            model, card = load(one.file, device)
            for some, maps in _model_maps(model, card, questions, source, device):
                for question, found in zip(some, maps, strict=True):
                    laid = one.questions[question] * on_image(found, card.view, places[question.image], side)
                    sums[question] = sums[question] + laid if question in sums else laid
        except NoMapError as error:
            problems[f"{one.trial}: {error}"] = None
        except FileNotFoundError:
            problems[f"{one.trial}: its weights are gone ({one.file})"] = None
        except (*DAMAGE, RuntimeError) as error:
            words = "the device has no room" if isinstance(error, torch.OutOfMemoryError) else f"{type(error).__name__}: {error}"
            problems[f"{one.trial}: {words}"] = None
        progress(len(questions))
    return Maps({question: scaled(total) for question, total in sums.items()}, tuple(problems))


def _model_maps(
    model: "Classifier", card: Card, questions: Sequence[Question], source: Source | Shown, device: "torch.device"
) -> Iterator[tuple[Sequence[Question], np.ndarray]]:
    """Some of the questions at a time, and their maps (n, height, width) in the pixels of the view."""
    from trainables.models.spatial import spatial_layers

    images, rows = source.seen(card.view)
    channels = 4 if card.config.model.edges == "stem" else 3
    layers = spatial_layers(model.backbone, (channels, card.view.height, card.view.width))
    row = dict(zip(source.ids, rows.tolist(), strict=True))
    for start in range(0, len(questions), PASS):
        some = questions[start : start + PASS]
        pixels = images[[row[question.image] for question in some]]
        pixels = with_edges(pixels) if card.config.model.sees_edges else pixels
        outputs = [output_of(card.task, question) for question in some]
        yield some, grad_cam(model, layers, pixels, outputs, device)


def output_of(task: Task, question: Question) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """From all that a model puts out for an image (columns,), its heads side by side, to the number that the question is about.

    Of Tags the tag's logit, of a Number that itself, of Classes the logit of the class. Where a head has the product of several Classes,
    the logit of one target's class is the logarithm of the summed exponentials of all joint classes that have it: what its marginal
    probability is the softmax of.
    """
    start = 0
    for part in task.head_schemes:
        if question.target in part.names:
            place = part.names.index(question.target)
            if part.kind == "classes":
                columns = start + np.flatnonzero(part.split(np.arange(part.classes))[:, place] == question.value)
            else:
                columns = np.array([start + sum(part.sizes[:place]) + question.value])
            chosen = columns.tolist()
            return lambda outputs: outputs[chosen].logsumexp(0)
        start += part.classes
    raise KeyError(question.target)


def grad_cam(
    model: "Classifier",
    layers: "Sequence[Layer]",
    pixels: np.ndarray,
    outputs: "Sequence[Callable[[torch.Tensor], torch.Tensor]]",
    device: "torch.device",
) -> np.ndarray:
    """Maps (n, height, width) float32 from 0 to 1 of which positions of images raise an output, the mean over the layers.

    An image whose output nothing raises has a map of 0.

    Args:
        layers: of the model's backbone.
        pixels: (n, height, width, channels) uint8.
        outputs: of each image, from all that the model puts out (columns,) to one number.
    Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017; as computed by
        pytorch-grad-cam.
    """
    import torch
    from pytorch_grad_cam import GradCAM
    from torch import nn

    from trainables.models.assemble import to_input

    class Logits(nn.Module):
        """Images to the columns (n, columns) of all heads: the library takes one tensor."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([head.float() for head in self.model(images).logits], dim=1)

    def cut(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        # Nothing before the layer needs a gradient: a map costs little more than a prediction. A clone, as what follows may write into it.
        return output.detach().requires_grad_().clone()

    images = to_input(torch.from_numpy(pixels), device)
    found = []
    with torch.enable_grad():
        for layer in layers:
            hook = layer.module.register_forward_hook(cut)
            cam = GradCAM(Logits(), [layer.module], lambda output, layer=layer: layer.to_map(output).clone())
            try:
                # pyrefly: ignore[bad-argument-type]  it takes functions; its annotation says modules
                found.append(cam(images, list(outputs)))
            finally:
                cam.activations_and_grads.release()
                hook.remove()
    model.zero_grad(set_to_none=True)
    return np.mean(found, axis=0)


def on_image(found: np.ndarray, view: View, place: Place, side: int) -> np.ndarray:
    """A map (height, width) in the pixels of a view, on the whole image with its longer side at `side` pixels; 0 outside the view."""
    import cv2

    area, (across, down) = area_of(place.size, view, place.faces[view])
    left, top = (view.width - across) // 2, (view.height - down) // 2
    scale = side / max(place.size)
    width, height = (max(1, round(scale * one)) for one in place.size)
    # From a pixel of the result to the pixel of the view that lies there; centres of pixels are halves.
    zoom = across / (area[2] - area[0]), down / (area[3] - area[1])
    columns = ((np.arange(width) + 0.5) * place.size[0] / width - area[0]) * zoom[0] + left - 0.5
    rows = ((np.arange(height) + 0.5) * place.size[1] / height - area[1]) * zoom[1] + top - 0.5
    x, y = (one.astype(np.float32) for one in np.meshgrid(columns, rows))
    laid = cv2.remap(found.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (x >= left - 0.5) & (x <= left + across - 0.5) & (y >= top - 0.5) & (y <= top + down - 0.5)
    return np.where(inside, laid, 0).astype(np.float32)


def scaled(found: np.ndarray) -> np.ndarray:
    """The map with its highest value at 1; one of 0 as it is."""
    return found / found.max() if found.max() > 0 else found

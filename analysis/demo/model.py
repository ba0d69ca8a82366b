"""Files of images, as they come over a network, to what an ensemble predicts and what it saw; models stay loaded."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from analysis.demo.answers import Answers
from analysis.evaluation.novelty import FALSE_ALARMS
from analysis.members.heatmaps import Place, Question
from trainables.data.decoding import TOLD, UNREADABLE, TooLargeError, UnknownFormatError, decode, open_image
from trainables.data.faces import Box
from trainables.data.targets import Scheme
from trainables.data.views import View, area_of, faces_of, look
from trainables.metrics.metric import TAGGED

SIDE = 256  # pixels of the longer side of a heat map
TAGS = 3  # of an image that have a heat map
NO_GRADIENTS = "an exported ensemble has no heat maps: they take the gradients of its networks; serve runs/<run>/ensemble itself"
PIXELS = 50_000_000  # of one image; its header is believed until they are decoded
File = tuple[str, bytes]  # name and content


class Target(BaseModel):
    """What is predicted of one target."""

    target: str
    value: str | list[str] | float = Field(description="the predicted class, the tags that are there, or the number")
    probability: float | None = Field(description="of the predicted class")
    probabilities: dict[str, float] | None = Field(description="of every class or tag")


class Seen(BaseModel):
    """What the models saw of an image."""

    view: str = Field(description="size, crop and fit")
    crop: tuple[float, float, float, float] = Field(description="left, top, right, bottom in pixels of the upright image")
    face: tuple[int, int, int, int] | None = Field(description="likewise: the face that was detected")
    needs_face: bool = Field(description="whether the view is cut around a face")
    picture: str = Field(description="the pixels, as a data URI; empty unless they were asked for")


class HeatMap(BaseModel):
    """Which parts of an image raise what is predicted."""

    target: str
    value: str = Field(description="the class or tag that the map is of; empty for a number")
    picture: str = Field(description="the image in grey with the map over it, yellow where it is highest, as a data URI")


class Prediction(BaseModel):
    """What is predicted of one image."""

    image: str = Field(description="the name of its file")
    problem: str = Field("", description="why it cannot be used; then the rest is empty")
    status: int = Field(200, description="200, or what a request with this file alone is answered with")
    width: int = Field(0, description="pixels, upright")
    height: int = 0
    targets: list[Target] = []
    scores: list[float] = Field([], description="the answer, a number for each of the card's classes")
    unlike_anything_learned: bool | None = Field(
        None,
        description="whether it is further from what was learned than nearly all validation images; its answer means nothing",
    )
    distance: float | None = Field(None, description="from what was learned, in units of what is usual of validation images")
    saw: list[Seen] = []
    heat_maps: list[HeatMap] = Field([], description="where the models look; empty unless they were asked for")
    no_heat_maps: str = Field("", description="why some or all that were asked for are missing")
    changes: list[str] = Field([], description="what was done to the pixels beside decoding them")


class Model:
    """What answers, for one thread at a time."""

    def __init__(self, answers: Answers):
        """Raises: RunError, DataError where it cannot predict, as shown by an image."""
        self.answers, self.views = answers, answers.views
        sample = io.BytesIO()
        Image.new("RGB", (64, 64), "grey").save(sample, "PNG")
        self.predict([("sample", sample.getvalue())])

    @property
    def scheme(self) -> Scheme:
        return self.answers.scheme

    def predict(
        self, files: Sequence[File], pictures: bool = False, false_alarms: float = FALSE_ALARMS, heat_maps: bool = False
    ) -> list[Prediction]:
        """One prediction for each file, in their order. Raises: RunError where a batch does not fit the GPU.

        Args:
            pictures: whether the pixels that the models saw come along.
            false_alarms: share of images like those learned from that may be called unlike anything learned.
            heat_maps: whether maps of what raises the predicted values come along, where they can be had.
        """
        found, shown = [], []
        for name, content in files:
            prediction, opened = self._look(name, content, pictures)
            found.append(prediction)
            shown += [opened] if opened else []
        if shown:
            usable = [prediction for prediction in found if not prediction.problem]
            images = {view: np.stack([one.pixels[view] for one in shown]) for view in self.views}
            scored, novelty = self.answers.predict(images, [prediction.image for prediction in usable]), self.answers.novelty
            for prediction, row in zip(usable, scored.scores, strict=True):
                prediction.scores, prediction.targets = row.tolist(), read_scores(self.scheme, row)
            if novelty and scored.distances is not None:
                flags = novelty.flags(scored.distances, false_alarms).tolist()
                for prediction, flag, distance in zip(usable, flags, scored.distances.tolist(), strict=True):
                    prediction.unlike_anything_learned, prediction.distance = flag, distance
            if heat_maps:
                self._add_heat_maps(usable, shown, images)
        return found

    def _add_heat_maps(self, predictions: Sequence[Prediction], shown: Sequence["Opened"], images: Mapping[View, np.ndarray]) -> None:
        # Files may have the same name; their number has not.
        numbered = {str(number): one for number, one in enumerate(shown)}
        questions = {
            question: (prediction, words)
            for number, prediction in enumerate(predictions)
            for question, words in asked_of(self.scheme, str(number), prediction)
        }
        places = {name: Place(one.image.size, one.faces) for name, one in numbered.items()}
        found = self.answers.heat_maps(list(questions), images, places, SIDE)
        if found is None:
            for prediction in predictions:
                prediction.no_heat_maps = NO_GRADIENTS
            return
        from analysis.pages.heatmaps import coloured, thumbnail_of
        from analysis.pages.page import jpeg_uri

        small = {name: thumbnail_of(one.image, SIDE) for name, one in numbered.items()}
        for question, (prediction, words) in questions.items():
            prediction.no_heat_maps = "; ".join(found.problems)
            if question in found.maps:
                picture = jpeg_uri(coloured(small[question.image], found.maps[question]))
                prediction.heat_maps.append(HeatMap(target=question.target, value=words, picture=picture))

    def _look(self, name: str, content: bytes, pictures: bool) -> tuple[Prediction, "Opened | None"]:
        try:
            with open_image(io.BytesIO(content)) as header:
                if header.width * header.height > PIXELS:
                    raise TooLargeError(f"{header.width} x {header.height} pixels; the limit is {PIXELS:,}")
            image, changes = decode(io.BytesIO(content))
        except UNREADABLE as error:
            status = 413 if isinstance(error, TooLargeError) else 415 if isinstance(error, UnknownFormatError) else 422
            return Prediction(image=name, problem=str(error) or type(error).__name__, status=status), None
        faces = faces_of(image, self.views)
        pixels = {view: look(image, view, face) for view, face in faces.items()}
        saw = [
            Seen(
                view=str(view),
                crop=area_of(image.size, view, faces[view])[0],
                face=faces[view],
                needs_face=view.needs_face,
                picture=_data_uri(pixels[view]) if pictures else "",
            )
            for view in self.views
        ]
        words = [TOLD[change].removeprefix("images ") for change in changes]
        return Prediction(image=name, width=image.width, height=image.height, saw=saw, changes=words), Opened(image, faces, pixels)


@dataclass(frozen=True, eq=False)
class Opened:
    """An image that can be used."""

    image: Image.Image  # upright
    faces: dict[View, Box | None]
    pixels: dict[View, np.ndarray]  # what each view shows of it


def asked_of(scheme: Scheme, name: str, prediction: Prediction) -> Iterator[tuple[Question, str]]:
    """What heat maps of a prediction are of, each with its value in words: what is predicted of each target; of tags the most probable of
    those that are there, or of all where none is."""
    for target, one in zip(scheme.targets, prediction.targets, strict=True):
        if target.kind == "number":
            yield Question(name, target.name, 0), ""
        elif target.kind == "tags":
            shares = one.probabilities or {}
            there = one.value if isinstance(one.value, list) and one.value else list(shares)
            for value in sorted(there, key=lambda value: -shares[value])[:TAGS]:
                yield Question(name, target.name, target.values.index(value)), value
        else:
            yield Question(name, target.name, target.values.index(str(one.value))), str(one.value)


def read_scores(scheme: Scheme, row: np.ndarray) -> list[Target]:
    """What an answer (columns,) to one image says of each target: the values of the most probable joint class, tags, or a number."""
    scores = row[None]
    if scheme.kind == "number":
        return [Target(target=scheme.names[0], value=float(row[0]), probability=None, probabilities=None)]
    if scheme.kind == "tags":
        shares = _named(scheme.class_names(), row)
        there = [name for name, share in shares.items() if share >= TAGGED]
        return [Target(target=scheme.names[0], value=there, probability=None, probabilities=shares)]
    found: list[Target] = []
    for target, value in zip(scheme.targets, scheme.split(scores.argmax(axis=1))[0].tolist(), strict=True):
        shares = scheme.marginal((target.name,), scores)[0]
        named = _named(target.values, shares)
        found.append(Target(target=target.name, value=target.values[value], probability=float(shares[value]), probabilities=named))
    return found


def _named(names: Sequence[str], shares: Any) -> dict[str, float]:
    return dict(zip(names, map(float, shares), strict=True))


def _data_uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Files of images, as they come over a network, to what an ensemble predicts and what it saw; models stay loaded."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from analysis.demo.answers import Answers
from analysis.evaluation.novelty import FALSE_ALARMS
from trainables.data.decoding import TOLD, UNREADABLE, TooLargeError, UnknownFormatError, decode, open_image
from trainables.data.targets import Scheme
from trainables.data.views import View, area_of, faces_of, look
from trainables.metrics.metric import TAGGED

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

    def predict(self, files: Sequence[File], pictures: bool = False, false_alarms: float = FALSE_ALARMS) -> list[Prediction]:
        """One prediction for each file, in their order. Raises: RunError where a batch does not fit the GPU.

        Args:
            pictures: whether the pixels that the models saw come along.
            false_alarms: share of images like those learned from that may be called unlike anything learned.
        """
        found, shown = [], []
        for name, content in files:
            prediction, pixels = self._look(name, content, pictures)
            found.append(prediction)
            shown += [pixels] if pixels else []
        if shown:
            usable = [prediction for prediction in found if not prediction.problem]
            images = {view: np.stack([pixels[view] for pixels in shown]) for view in self.views}
            scored, novelty = self.answers.predict(images, [prediction.image for prediction in usable]), self.answers.novelty
            for prediction, row in zip(usable, scored.scores, strict=True):
                prediction.scores, prediction.targets = row.tolist(), read_scores(self.scheme, row)
            if novelty and scored.distances is not None:
                flags = novelty.flags(scored.distances, false_alarms).tolist()
                for prediction, flag, distance in zip(usable, flags, scored.distances.tolist(), strict=True):
                    prediction.unlike_anything_learned, prediction.distance = flag, distance
        return found

    def _look(self, name: str, content: bytes, pictures: bool) -> tuple[Prediction, dict[View, np.ndarray] | None]:
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
        return Prediction(image=name, width=image.width, height=image.height, saw=saw, changes=words), pixels


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

"""On drawn people it is known which pixels are mask and which are hair: heat lies there more than elsewhere, if the network has learned."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from analysis.members.heatmaps import Question, grad_cam, output_of
from trainables.build import build_parts
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.splits import split_groups
from trainables.data.training import Data
from trainables.data.views import View, build_views, look
from trainables.loop import fit
from trainables.models.assemble import IMAGENET, build_model, to_input
from trainables.models.spatial import spatial_layers
from tuner.demo import drawing
from tuner.demo.people import cast_people
from tuner.demo.writing import write_people

pytestmark = pytest.mark.nightly

SIZE = (72, 96)  # width, height of what is drawn, and of what the network sees
MASK, HAIR = 1, 2
PARTS = {"mask": MASK, "gender": HAIR}  # by target: what has to be looked at, among other things
CPU = torch.device("cpu")


@contextmanager
def parts_of_drawings() -> Iterator[list[Image.Image]]:
    """Draw each person a second time, in plain labels: what is mask is MASK, what is hair HAIR, unless something covers it."""
    drawn: list[Image.Image] = []

    class Pen(drawing.Pen):
        part, hair = 0, np.zeros(3)

        def __init__(self, canvas, *pose, **more):
            super().__init__(canvas, *pose, **more)
            drawn.append(Image.new("L", canvas.size))
            self._labels = ImageDraw.Draw(drawn[-1])

        def shape(self, points, colour, alpha=1.0):
            super().shape(points, colour, alpha)
            if alpha == 1:
                # Long hair is drawn with the body, in a darker shade.
                label = Pen.part or (HAIR if np.array_equal(colour, Pen.hair * 0.8) else 0)
                self._labels.polygon(self._place(points), fill=label)

    def labelled(draw, part):
        def during(pen, looks, *more):
            Pen.part, Pen.hair = part, looks.hair
            draw(pen, looks, *more)
            Pen.part = 0

        return during

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "Pen", Pen)
        for name, part in (("_draw_body", 0), ("_draw_mask", MASK), ("_draw_front_hair", HAIR)):
            patch.setattr(drawing, name, labelled(getattr(drawing, name), part))
        yield drawn


@pytest.fixture(scope="module")
def learned(tmp_path_factory, cache, make_config):
    """The parts of a trial that has learned from 200 drawn people what mask and gender look like, and its settings."""
    folder = write_people(tmp_path_factory.mktemp("drawn") / "people", people=200, eval_people=3, seed=0, size=SIZE, quirks=False)
    config = make_config(epochs=5, task="heads", view={"size": list(reversed(SIZE))})
    images = read_images(folder, DataConfig())
    views = build_views(images, [View.of(config.view)], cache)
    parts = build_parts(config, Data.of(images, split_groups(images, DataConfig(), 0), views, with_statistics=True), CPU)
    for _ in fit(parts, config.train, epochs=config.epochs, seed=0):
        pass
    return parts, config


@pytest.fixture(scope="module")
def people(learned):
    """Others: pixels (n, height, width, 3), the labels of these, and what is true of each target."""
    view = View.of(learned[1].view)
    with parts_of_drawings() as drawn:
        shots = [(one, stem, image) for one in cast_people(14, (7,), {}) for stem, image in drawing.draw_shots(one, SIZE)]
    pixels = np.stack([look(image, view) for _, _, image in shots])
    labels = np.stack([np.asarray(one.resize(SIZE, Image.Resampling.NEAREST)) for one in drawn])
    truth = {"mask": np.array([drawing.SHOTS[stem] for _, stem, _ in shots]), "gender": np.array([one.gender for one, _, _ in shots])}
    return pixels, labels, truth


def heat_on_parts(model, task, people, target):
    """How many times as much heat lies on the part as chance would have there, over the images that have it (of masks, worn as they should
    be); and the same of maps that are moved by half the image, which are as patchy."""
    pixels, labels, truth = people
    worn = truth["mask"] == 0 if target == "mask" else True
    rows = np.flatnonzero((labels == PARTS[target]).any(axis=(1, 2)) & worn)
    layers = spatial_layers(model.backbone, (3, *reversed(SIZE)))
    outputs = [output_of(task, Question("", target, int(truth[target][row]))) for row in rows]
    maps = grad_cam(model, layers, pixels[rows], outputs, CPU)
    inside = labels[rows] == PARTS[target]

    def ratio(found):
        heat = (found * inside).sum(axis=(1, 2)) / np.maximum(found.sum(axis=(1, 2)), 1e-9)
        return float(heat.mean() / inside.mean())

    moved = np.roll(maps, (SIZE[1] // 2, SIZE[0] // 2), axis=(1, 2))
    return ratio(maps), ratio(moved)


def test_the_network_has_learned(learned, people):
    parts, _ = learned
    pixels, _, truth = people
    with torch.no_grad():
        heads = parts.model.eval()(to_input(torch.from_numpy(pixels), CPU)).logits
    for target in PARTS:
        said = heads[parts.task.scheme.names.index(target)].argmax(dim=1).numpy()
        assert (said == truth[target]).mean() > 0.8


@pytest.mark.parametrize(("target", "least"), [("mask", 1.5), ("gender", 1.1)])
def test_heat_lies_where_that_is_drawn_which_decides_more_than_elsewhere_and_than_an_untrained_networks(learned, people, target, least):
    parts, config = learned
    trained, moved = heat_on_parts(parts.model.eval(), parts.task, people, target)
    untrained, _ = heat_on_parts(build_model(config, parts.task, IMAGENET).eval(), parts.task, people, target)
    print(f"{target}: {trained:.2f} times chance; moved {moved:.2f}; untrained {untrained:.2f}")
    assert trained > least and trained > 1.1 * max(moved, untrained)

"""What takes longest of the command and is tested elsewhere is made short."""

import io
from functools import partial

import pytest
from PIL import Image

from analysis.ensemble import files
from analysis.evaluation import shift
from analysis.members import price


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """An empty picture in place of the figure, and a tenth of the draws of the bootstrap of prior shift; few timed passes."""
    picture = io.BytesIO()
    Image.new("RGB", (1, 1)).save(picture, "PNG")
    monkeypatch.setattr(files, "answer_picture", lambda runs, outcome: (files.PICTURES[outcome.decision.scheme.kind], picture.getvalue()))
    monkeypatch.setattr(shift, "estimate", partial(shift.estimate, draws=shift.DRAWS // 10))
    monkeypatch.setattr(price, "SECONDS", 0.0)

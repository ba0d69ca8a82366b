"""The demo over an exported ensemble: the same answers, and no PyTorch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from analysis.demo import __main__ as command
from analysis.demo import with_onnx
from analysis.demo.card import card_of
from analysis.demo.model import Model
from analysis.demo.server import make_app
from analysis.demo.with_onnx import WithOnnx, exported_file
from analysis.ensemble.__main__ import app as ensemble
from analysis.export.__main__ import app as export
from analysis.pages.access import Names
from analysis.pages.model_card import CARD
from analysis.predict.__main__ import app as predict
from tests.analysis.demo.test_demo import ADDRESS, form
from tests.conftest import ROOT
from tests.messages import missing
from trainables.record import RunError

pytestmark = pytest.mark.nightly  # exporting takes long

HEAVY = ("torch", "ray", "timm", "pandas", "sklearn", "scipy", "matplotlib", "albumentations", "optuna")


@pytest.fixture(scope="module")
def folder(faces, tmp_path_factory) -> Path:
    """The folder of runs; an ensemble of all trials, which differ in view and channels, is exported beside it."""
    place = tmp_path_factory.mktemp("onnx")
    run = shutil.copytree(faces.folder, place / "runs" / "faces")
    words = ["--run", str(run), "--top", "4", "--whole", "--vote", "soft", "--step", "none"]
    assert (result := CliRunner().invoke(ensemble, words)).exit_code == 0, result.output
    words = ["--ensemble", str(run / "ensemble"), "--out", str(place / "exported")]
    assert (result := CliRunner().invoke(export, words)).exit_code == 0, result.output
    return place


@pytest.fixture(scope="module")
def file(folder) -> Path:
    return folder / "exported" / "ensemble.onnx"


@pytest.fixture
def images(people, tmp_path) -> list[Path]:
    """Five people and a picture of noise."""
    for number, image in enumerate(sorted((people / "train" / "images").rglob("*.*g"))[:5]):
        shutil.copy(image, tmp_path / f"{number}{image.suffix}")
    Image.effect_noise((60, 80), 120).convert("RGB").save(tmp_path / "noise.png")
    return sorted(tmp_path.iterdir())


def test_it_answers_as_analysis_predict_does_and_flags_what_that_flags(folder, file, images, tmp_path):
    out = tmp_path.parent / "answers.csv"
    words = ["--ensemble", str(folder / "runs/faces/ensemble"), "--photos", str(tmp_path), "--out", str(out), "--device", "cpu"]
    assert (result := CliRunner().invoke(predict, [*words, "--false-alarms", "0.1"])).exit_code == 0, result.output
    table, model = pd.read_csv(out), Model(WithOnnx(file))
    client = TestClient(make_app(model, card_of(model), Names(), false_alarms=0.1), base_url=ADDRESS)
    found = client.post("/predict", files=form(*images)).json()["images"]
    expected = table[[name for name in table if name.startswith("P(")]].to_numpy()
    np.testing.assert_allclose([one["scores"] for one in found], expected, atol=1e-5)
    far = table["distance from what was learned"].to_numpy()
    np.testing.assert_allclose([one["distance"] for one in found], far, rtol=1e-3)
    assert [one["unlike_anything_learned"] for one in found] == (table["unlike anything learned"] == "yes").tolist()
    assert found[-1]["image"] == "noise.png" and found[-1]["unlike_anything_learned"]
    card = client.get("/model").json()
    assert card["name"] == "faces" and card["flags"] and card["models"] == 4 and "onnxruntime" in card["versions"]
    assert (
        card["score"]["score"]
        == json.loads((folder / "runs/faces/ensemble/scores.json").read_text())["answers"][card["score"]["answer"]]["score"]
    )


def test_the_model_card_lies_beside_it(folder, file):
    assert (file.parent / CARD).read_bytes() == (folder / "runs/faces/ensemble" / CARD).read_bytes()


def test_the_server_over_it_loads_neither_torch_nor_anything_else_that_the_image_lacks(file, images):
    script = f"""
        import sys
        for name in {HEAVY!r}: sys.modules[name] = None  # to import it is an ImportError
        import analysis.demo.__main__
        from analysis.demo.card import card_of
        from analysis.demo.model import Model
        from analysis.demo.server import make_app
        from analysis.demo.with_onnx import WithOnnx
        from analysis.pages.access import Names
        from pathlib import Path
        model = Model(WithOnnx(Path({str(file)!r})))
        make_app(model, card_of(model), Names())
        (one,) = model.predict([("a", Path({str(images[0])!r}).read_bytes())], True)
        print(len(one.scores))
    """
    lines = "\n".join(map(str.strip, script.splitlines()))
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "18", done.stderr


def refused(*words: object) -> str:
    result = CliRunner().invoke(command.app, list(map(str, words)))
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr


def test_what_is_no_exported_ensemble_is_refused_by_name(file, tmp_path):
    assert exported_file(file.parent) == file and exported_file(tmp_path) is None
    assert not missing(refused("--ensemble", tmp_path / "gone.onnx", "--port", 0), "gone.onnx", "analysis.export")
    (tmp_path / "text.onnx").write_text("no network")
    assert not missing(refused("--ensemble", tmp_path / "text.onnx", "--port", 0), "text.onnx")
    for name, change in (("newer", {"format": 99}), ("old", {"targets": None})):
        proto = onnx.load(file)
        (entry,) = (one for one in proto.metadata_props if one.key == "card")
        entry.value = json.dumps(json.loads(entry.value) | change)
        onnx.save(proto, tmp_path / f"{name}.onnx")
        assert not missing(refused("--ensemble", tmp_path / f"{name}.onnx", "--port", 0), f"{name}.onnx")
    assert not missing(refused("--ensemble", file, "--device", "cuda", "--port", 0), "--device")


def test_what_an_image_needs_and_cannot_be_had_is_said(file, tmp_path, monkeypatch):
    proto = onnx.load(file)
    (entry,) = (one for one in proto.metadata_props if one.key == "card")
    card = json.loads(entry.value)
    card["inputs"][0]["view"]["crop"] = "face"
    entry.value = json.dumps(card)
    onnx.save(proto, tmp_path / "face.onnx")
    monkeypatch.setattr(with_onnx, "find_spec", lambda name: None)
    with pytest.raises(RunError) as told:
        WithOnnx(tmp_path / "face.onnx")
    assert not missing(str(told.value), "face.onnx", "MTCNN", "opencv-python-headless")

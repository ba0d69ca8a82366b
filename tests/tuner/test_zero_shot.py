"""A CLIP with random weights from its file to a table of probes, a vote, predictions and ONNX; and what a wrong file ends with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.evaluation.search.probes import probes_of as probe_table_of
from analysis.export import parity
from analysis.export.__main__ import app as export
from analysis.members.predictions import Source, predict_trials, wanted_views
from analysis.members.trials import load_runs
from tests.conftest import already
from tests.messages import missing
from tests.trainables.clips import BACKBONE, SIDE, clip, saved
from tests.tuner.test_probing import searched
from trainables.data.layouts.reading import read_images
from trainables.data.view_store import view_cache
from trainables.data.views import build_views
from trainables.record import read_records

pytestmark = pytest.mark.nightly

SPACE = """
run:       {{trials: 2, epochs: 2, pruner: none, finalists: 0}}
task:      {{choice: [joint, heads]}}
data:      {{holdout: 0.2, folds: 2}}
view:      {{size: {side}}}
normalize: backbone
model:
  backbone: {backbone}
  weights:  "{weights}"
  heads:    {{choice: [zero_shot, probe]}}
  texts:    ["a photo of a {{class}}.", [worn, a mask, a covered mouth]]
optimizer: {{lr: {{float: [1.0e-6, 1.0e-5], log: true}}}}
train:     {{batch_size: 16}}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "clip.yaml").write_text(SPACE.format(side=SIDE, backbone=BACKBONE, weights=saved(clip(), folder / "clip.pt")))
    return folder / "clip.yaml"


@pytest.fixture(scope="module")
def run(space, demo, ray_cluster, tmp_path_factory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    code, said = searched(already(ray_cluster), space=str(space), data=demo, name="clip", storage=str(storage))
    assert code == 0, said
    return storage / "clip"


def test_a_zero_shot_probe_stands_in_the_table_and_the_search_trains_on_from_texts(run):
    methods = {row.method: row.trial for row in probe_table_of(run).rows}
    assert methods == {"linear": 1, "zero-shot": 2, "k-NN": None}
    records = read_records(run)
    assert [record.result.state for record in records] == ["finished"] * 4
    assert [record.config.model.is_probe for record in records] == [False, True, True, False]
    assert records[0].config.model.heads == "zero_shot" and len(records[0].reports) == 2, "the baseline, which trains"


def test_a_zero_shot_probe_votes_predicts_and_is_exported_like_any_trial(run, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parent)
    result = CliRunner().invoke(ensemble, ["--run", str(run), "--members", "clip/1,clip/2", "--whole", "--step", "none"])
    assert result.exit_code == 0, result.output
    monkeypatch.setattr(parity, "IMAGES", parity.PASS + 6)
    result = CliRunner().invoke(export, ["--run", str(run), "--trial", "2", "--out", str(tmp_path / "clip.onnx")])
    assert result.exit_code == 0 and (tmp_path / "clip.onnx").is_file(), result.output
    trial = next(one for one in load_runs([run]).trials if one.record.number == 2)
    images, ids = read_images(demo, trial.record.config.data), load_runs([run]).valid.ids[:20]
    source = Source(build_views(images, wanted_views([trial]), view_cache()), ids)
    (answer,) = predict_trials([trial], source, torch.device("cpu")).values()
    assert answer == pytest.approx(trial.valid[:20], abs=1e-5)


@pytest.mark.parametrize(
    "command, changes, parts",
    [
        ("tuner.probe", ["model/weights={bare}"], ["model/weights", "text_projection", "bare.safetensors"]),
        ("tuner.run", ["model/weights={bare}"], ["model/weights", "text_projection", "bare.safetensors"]),
        ("tuner.probe", ["model/weights=none"], ["model/weights"]),
        ("tuner.run", ["model/backbone=test_resnet"], ["model/backbone", "test_resnet"]),
        ("tuner.probe", ["model/texts=[[wron, a mask]]"], ["model/texts", "'wron'", "worn"]),
    ],
)
def test_what_is_wrong_ends_with_2_and_its_name_before_anything_is_trained(space, demo, tmp_path, start_command, command, changes, parts):
    save_file({name: value for name, value in clip().state_dict().items() if name != "text_projection"}, tmp_path / "bare.safetensors")
    given = [word for change in changes for word in ("--set", change.format(bare=tmp_path / "bare.safetensors"))]
    process = start_command(tmp_path, command, "--space", space, "--data", demo, "--name", "wrong", *given)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2 and not missing(out + err, *parts) and "Traceback" not in out + err, out + err
    assert not list(tmp_path.glob("runs/wrong/trials/*"))

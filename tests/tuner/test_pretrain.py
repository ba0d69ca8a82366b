import pytest
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from trainables.models.backbone import build_backbone
from trainables.models.settings import ModelConfig
from tuner.pretrain import main

app = typer.Typer()
app.command()(main)


def pretrain(*words):
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, list(map(str, words)))


def test_the_command_writes_weights_that_a_search_begins_with(demo, tmp_path):
    out = tmp_path / "deep" / "vit.safetensors"
    done = pretrain("--backbone", "test_vit", "--data", demo, "--size", 32, "--epochs", 2, "--out", out)
    assert done.exit_code == 0, done.output
    assert "epoch 2 of 2: error of hidden pixels" in done.stdout and f"--set model/weights={out}" in done.stdout
    state = load_file(out)
    backbone, _ = build_backbone(ModelConfig(backbone="test_vit", weights=str(out)), (32, 32))
    assert all((value == state[key]).all() for key, value in backbone.state_dict().items())


def test_held_out_people_are_not_learned_from_and_photos_to_predict_are(demo, photos, tmp_path):
    words = ("--backbone", "test_vit", "--data", demo, "--size", 32, "--epochs", 1, "--holdout", 0.3, "--out", tmp_path / "a.safetensors")
    done = pretrain(*words)
    people = len(set(photos.people.tolist()))
    learned = int(done.stdout.split(" photos to learn from")[0].split()[-1])
    assert len(photos) * 0.6 < learned < len(photos) * 0.75, (people, done.stdout)
    # The demo has 28 photos to predict.
    assert f"{learned + 28} photos at 32x32 pixels" in done.stdout


@pytest.mark.parametrize(
    "words, message",
    [
        (["--backbone", "resnet_18"], "timm has no 'resnet_18'; did you mean resnet18"),
        (["--backbone", "test_vit", "--data", "nowhere"], "nowhere"),
        (["--backbone", "test_vit", "--lr", "0"], "--lr is 0.0; give a number above 0"),
        (["--backbone", "test_vit", "--out", "weights.pt"], "weights are kept as safetensors"),
        (["--backbone", "test_vit", "--weights", "gone.safetensors", "--size", "32"], "no such file: gone.safetensors"),
        (["--backbone", "test_vit", "--size", "40"], "test_vit cannot take 40x40 pixels"),
    ],
)
def test_what_cannot_be_done_is_said_in_words_with_exit_code_2(words, message):
    done = pretrain(*words)
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ") and "Traceback" not in done.output

"""Backbones by numbers: as their authors published them, without a network and without their weights in memory."""

import json

import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from search_spaces.backbones import count, main
from trainables.models.catalogue import PUBLISHED, accuracy_of, at_hand, matching, measure, read_results
from trainables.registry import ConfigError

app = typer.Typer()
app.command()(main)


def test_parameters_gflops_and_accuracy_are_those_that_torchvision_publishes():
    found = measure("resnet18.tv_in1k", {})
    assert (found.parameters, round(found.gflops, 2), found.size) == (11_689_512, 1.81, 224)
    assert found.megabytes == pytest.approx(4 * (11_689_512 - 513_000) / 1e6, abs=0.1), "without the classifier"
    assert (found.accuracy.top1, found.accuracy.weights) == (69.758, "resnet18.tv_in1k")


def test_nothing_is_allocated_for_a_network_of_a_thousand_million_parameters(monkeypatch):
    made = []
    create = torch.nn.Parameter.__new__
    monkeypatch.setattr(
        torch.nn.Parameter, "__new__", lambda cls, data=None, *rest: made.append(data.device.type) or create(cls, data, *rest)
    )
    assert measure("vit_giant_patch14_224", {}).parameters > 1e9
    assert set(made) == {"meta"}


def test_the_accuracy_of_other_weights_is_named_as_such_and_what_is_unknown_stays_empty():
    assert accuracy_of("resnet34", 21_797_672, {}).weights == "torchvision's IMAGENET1K_V1", "timm's resnet34 stands for other weights"
    assert accuracy_of("resnet34", 21_797_672, {"resnet34.a1_in1k": 77.0}).top1 == 77.0
    assert accuracy_of("resnet34", 1, {}) is None, "a network of that name with other layers"
    assert accuracy_of("test_resnet", 1, {}) is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_papers_published_is_of_weights_that_timm_has(name):
    assert matching([name]) == [name]


def test_patterns_that_fit_nothing_are_all_refused_with_the_nearest_name():
    assert matching(["resnet18", "resnet1[48]"])[0] == "resnet18"
    with pytest.raises(ConfigError) as caught:
        matching(["resnet18", "resnte34", "effnot_*"])
    assert "resnte34" in str(caught.value) and "effnot_*" in str(caught.value)


def test_weights_are_at_hand_as_a_file_or_in_the_hubs_cache(tmp_path):
    assert at_hand("resnet18", str(tmp_path / "{backbone}.safetensors")).startswith("no file")
    save_file({"a": torch.zeros(1)}, tmp_path / "resnet18.safetensors")
    assert at_hand("resnet18", str(tmp_path / "{backbone}.safetensors")) == f"file {tmp_path / 'resnet18.safetensors'}"


def test_a_table_of_accuracies_is_read_or_refused(tmp_path):
    file = tmp_path / "results.csv"
    file.write_text("model,top1,top5\nresnet34.a1_in1k,77.9,93.8\n")
    assert read_results(file) == {"resnet34.a1_in1k": 77.9}
    file.write_text("name,score\nresnet34,1\n")
    with pytest.raises(ConfigError, match=r"results\.csv"):
        read_results(file)


def test_the_command_keeps_what_is_small_and_better():
    words = ["resnet18", "regnety_004", "--better-than", "resnet34", "--max-gflops", "4", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert [one["name"] for one in answer["backbones"]] == ["regnety_004", "resnet34"] and answer["looked_at"] == 3


@pytest.mark.parametrize(("words", "named"), [([], "--space"), (["resnte34"], "resnte34"), (["resnet18", "--sort", "size"], "size")])
def test_mistakes_are_refused_by_name(words, named):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and named in done.output + done.stderr


def test_counts_have_units():
    assert count("20M") == 20e6 and count("5.3m") == 5.3e6 and count("1200") == 1200
    with pytest.raises(typer.BadParameter):
        count("many")

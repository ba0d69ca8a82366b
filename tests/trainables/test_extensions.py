"""A user's own files: what they add, what is refused, and whose code is executed."""

import pickle
from pathlib import Path

import pytest
import typer

from analysis.command import refusals
from tests.messages import missing, mistaken
from trainables.config import section
from trainables.data.views import CROPS, View, ViewConfig, store_folder
from trainables.extensions import (
    Extension,
    ExtensionError,
    fault_of,
    hashes,
    load,
    loaded,
    open_copies,
    refuse_versions,
    trust,
    trust_file,
    trusted,
    trusting,
    write_copies,
)
from trainables.losses import LOSSES
from trainables.metrics import BY_NAME, METRICS
from trainables.registry import Registry

LOSS = """
from trainables.losses import LOSSES, LossConfig, LossEntry
from trainables.registry import setting


class MineSettings(LossConfig):
    delta: float = setting("a number", 0.5)


LOSSES["mine"] = LossEntry(MineSettings, lambda settings, head: settings.delta / head)
"""


def extension(text: str, name: str = "my_parts.py") -> Extension:
    return Extension(name, text.encode())


@pytest.fixture(autouse=True)
def _forgotten(forget_extensions, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def names() -> list[set[str]]:
    return [set(registry) for registry in Registry.every]


def refused(*extensions: Extension) -> list[str]:
    with pytest.raises(ExtensionError) as caught:
        load(extensions)
    return str(caught.value).splitlines()


# What a file adds


def test_a_file_adds_an_entry_whose_settings_are_those_of_its_section_and_its_own():
    load([extension(LOSS)])
    assert LOSSES.origins["mine"] == extension(LOSS).sha256 and LOSSES.origins["focal"] == ""
    assert section("loss", name="mine", delta=2.0).ordinal == "none"
    assert LOSSES["mine"].build(section("loss", name="mine"), 2) == 0.25


def test_the_same_content_is_executed_once(capsys):
    load([extension("print('executed')")])
    load([extension("print('executed')")])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "executed\n"), "stdout is for the command's answer"
    assert hashes(loaded()) == {"my_parts.py": extension("print('executed')").sha256}


def test_files_keep_their_order_so_that_one_may_build_on_another():
    parts = extension(LOSS, "z.py"), extension("from trainables.losses import LOSSES\nLOSSES['also'] = LOSSES['mine']", "a.py")
    load(parts)
    assert loaded(["z.py", "a.py", "gone.py", "z.py"]) == loaded() == parts


def test_what_a_file_defines_can_be_pickled():
    load([extension(LOSS)])
    settings = section("loss", name="mine", delta=2.0)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_views_by_another_version_of_a_crop_are_stored_apart(forget_extensions, tmp_path):
    brought = "from trainables.data.views import CROPS, Crop, ViewConfig\n"
    crop = brought + "CROPS['mine'] = Crop(ViewConfig, lambda size, view, face: (0, 0, 8, {}))"
    folders = []
    for version in (8, 9):
        load([extension(crop.format(version))])
        folders.append(store_folder(tmp_path, View.of(ViewConfig(crop="mine"))))
        forget_extensions()
    assert folders[0] != folders[1] and "mine" not in CROPS


# What is refused


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("x = 1\nundefined_name\n", 2, ["NameError", "undefined_name"]),
        ("def f():\n    return 1 / 0\n\n\nf()\n", 2, ["ZeroDivisionError"]),
        ("x = (\n", 1, ["SyntaxError"]),
        ("x = '\0'\n", 1, ["SyntaxError"]),
        ("import sys\nsys.exit(3)\n", 2, ["SystemExit"]),
        ("import os\nos.chdir('/')\n", 1, ["current folder"]),
        ("import helpers_of_mine\n", 1, ["ModuleNotFoundError", "helpers_of_mine", "one file"]),
        (f"{LOSS}\nLOSSES['focal'] = LOSSES['mine']\n", 12, ["'focal'", "exists"]),
        (f"{LOSS}\nLOSSES.update(mine=LOSSES['mine'])\n", 12, ["'mine'", "exists"]),
        ("from trainables.losses import LOSSES\n\nLOSSES['own'] = print\n", 3, ["'own'", "LossEntry"]),
        (f"{LOSS}\nfrom trainables.registry import Section\nLOSSES['own'] = LossEntry(Section, print)\n", 13, ["'own'", "LossConfig"]),
        ("from trainables.metrics import METRICS, Metric\nMETRICS['own'] = Metric('other', 'other')\n", 2, ["'own'", "'other'"]),
        ("from trainables.metrics import METRICS, Metric\nMETRICS['own'] = Metric('own', 'own', target='tags')\n", 2, ["'own'", "tags"]),
        ("from timm.models import register_model\n\n\n@register_model\ndef resnet18(**settings): ...\n", 4, ["resnet18"]),
    ],
)
def test_a_file_that_raises_is_refused_with_its_line_and_its_own_error_and_leaves_nothing_behind(text, line, parts):
    before = names()
    assert mistaken(refused(extension(text)), [(f"my_parts.py:{line}: ", *parts)]) == []
    assert (names(), loaded()) == (before, ())
    assert not list(METRICS.keys() - BY_NAME.keys())


def test_all_files_that_raise_are_named_at_once():
    found = refused(extension("raise KeyError(1)", "one.py"), extension(LOSS, "two.py"), extension("\n!", "three.py"))
    assert mistaken(found, [("one.py:1: ", "KeyError"), ("three.py:2: ", "SyntaxError")]) == []


NETWORK = "from timm.models import register_model\n\n\n@register_model\ndef of_mine(**settings): ...\n"


def test_a_file_takes_the_place_of_its_earlier_version():
    load([extension(LOSS + NETWORK)])
    other = extension(LOSS.replace("0.5", "0.6").replace('LOSSES["mine"]', 'LOSSES["other"]') + NETWORK)
    load([other])
    assert loaded() == (other,) and "mine" not in LOSSES and section("loss", name="other").delta == 0.6
    assert refused(extension("1 / 0")) and loaded() == () and "other" not in LOSSES
    load([extension(LOSS + NETWORK)])


def test_runs_with_different_versions_of_a_file_are_not_opened_together():
    refuse_versions({"a": {"one.py": "0" * 64}, "b": {"one.py": "0" * 64, "two.py": "1" * 64}, "c": {}})
    with pytest.raises(ExtensionError) as caught:
        refuse_versions({"faces": {"one.py": "0" * 64}, "masks": {"one.py": "1" * 64}})
    assert missing(str(caught.value), "one.py", "faces", "masks", "0" * 12, "1" * 12) == []


def test_an_error_below_a_line_of_a_file_is_said_to_be_of_that_line():
    load([extension(LOSS)])
    with pytest.raises(ZeroDivisionError) as caught:
        LOSSES["mine"].build(section("loss", name="mine"), 0)
    assert missing(fault_of(caught.value), "my_parts.py:10: ", "ZeroDivisionError") == []
    assert fault_of(ValueError("of ours")) == ""


def test_a_command_says_such_an_error_without_a_traceback_and_any_other_with_one(capsys):
    load([extension(LOSS)])
    with pytest.raises(typer.Exit) as ended, refusals():
        LOSSES["mine"].build(section("loss", name="mine"), 0)
    assert ended.value.exit_code == 2 and missing(capsys.readouterr().err, "my_parts.py:10: ", "ZeroDivisionError") == []
    with pytest.raises(KeyError), refusals():
        raise KeyError("of ours")


# Copies, and whose code is executed


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that came from elsewhere."""
    write_copies(tmp_path / "faces", [extension(LOSS)])
    return tmp_path / "faces"


def opening(run: Path, known: dict[str, str] | None = None, trust_code: bool = False) -> str:
    with pytest.raises(ExtensionError) as caught, trusting(trust_code):
        open_copies(run, hashes([extension(LOSS)]) if known is None else known)
    assert "mine" not in LOSSES
    return str(caught.value)


def test_code_that_never_ran_here_is_executed_only_when_the_user_says_so_and_from_then_on_unasked(run, forget_extensions):
    known, sha256 = hashes([extension(LOSS)]), extension(LOSS).sha256
    assert missing(opening(run), run, run / "extensions" / "my_parts.py", sha256, "--trust-code") == []
    with trusting(True):
        assert open_copies(run, known) == (extension(LOSS),)
    forget_extensions()
    assert sha256 in trusted()
    open_copies(run, known)
    assert "mine" in LOSSES
    assert trust_file().read_text() == f"{sha256}  my_parts.py\n", "once"


def test_what_the_user_has_run_is_trusted_by_its_content(run):
    trust([extension(LOSS, "of_another_name.py")])
    open_copies(run, hashes([extension(LOSS)]))
    assert "mine" in LOSSES


def test_a_home_that_cannot_be_written_makes_the_question_come_again(run, monkeypatch, tmp_path, forget_extensions):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with trusting(True):
        open_copies(run, hashes([extension(LOSS)]))
    open_copies(run, hashes([extension(LOSS)]))  # this process has executed it
    forget_extensions()
    assert missing(opening(run), "--trust-code") == []


def test_a_copy_that_is_missing_is_refused_with_what_it_must_be(run):
    (run / "extensions" / "my_parts.py").unlink()
    assert missing(opening(run, trust_code=True), run / "extensions" / "my_parts.py", extension(LOSS).sha256) == []


def test_a_copy_that_was_changed_is_executed_only_when_the_user_says_so(run):
    changed = extension(LOSS + "\n")
    write_copies(run, [changed])
    trust([changed])
    assert missing(opening(run), run / "extensions" / "my_parts.py", changed.sha256, extension(LOSS).sha256, "--trust-code") == []
    with trusting(True):
        assert open_copies(run, hashes([extension(LOSS)])) == (changed,)


def test_a_record_that_names_a_file_elsewhere_is_refused(run, tmp_path):
    (tmp_path / "evil.py").write_text(LOSS)
    assert missing(opening(run, {"../../evil.py": extension(LOSS).sha256}, trust_code=True), run, "../../evil.py") == []

"""A run, as W&B's own reader finds it in the files."""

import json
import struct

from typer.testing import CliRunner

from analysis.export_wandb import __main__ as command
from tests.messages import missing
from trainables.record import MODEL, read_records

BLOCK = 32768  # bytes


def call(*words):
    return CliRunner().invoke(command.app, list(map(str, words)))


def records_in(folder):
    """What the file of a run holds: LevelDB's log format, whose records W&B's own messages read.

    A record may be in parts, of types 1 (whole), 2 (first), 3, 4 (last), and none crosses a block.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def test_each_trial_is_a_run_with_settings_curve_and_files_and_exported_again_none_is_doubled(faces, tmp_path):
    for _ in range(2):
        result = call(faces.folder, "--out", tmp_path, "--json")
        assert result.exit_code == 0, result.output
    assert "wandb sync" in result.stderr
    trials = read_records(faces.folder)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [str(folder) for folder in folders] == sorted(json.loads(result.stdout)["folders"]) and len(folders) == len(trials) + 1
    for trial in trials:
        (folder,) = [one for one in folders if one.name.endswith(f"-{trial.number}")]
        found = list(records_in(folder))
        (run,) = [one.run for one in found if one.WhichOneof("record_type") == "run"]
        config = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in run.config.update}
        assert run.run_group == "faces" and config["optimizer/lr"] == trial.config.optimizer.lr
        curve = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.history.item} for one in found if one.history.item
        ]
        assert [point["f1_macro"] for point in curve] == [report["score"] for report in trial.reports]
        assert {"config.json", "valid.npz", MODEL} <= {file.name for file in (folder / "files").iterdir()}


def test_without_wandb_it_says_what_to_install_beside_what_else_is_wrong(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.command.find_spec", lambda name: None)
    result = call("nowhere", "--out", "missing")
    assert result.exit_code == 2 and not missing(result.stderr, "pip install wandb", "'nowhere'", "--out missing")

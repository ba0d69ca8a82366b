from dataclasses import replace
from itertools import islice

import pytest

from search_spaces.read import find_extensions, read_space, shipped_spaces
from search_spaces.write import space_text
from tuner.searchers.random import random_draws

BASE = """
task: {choice: [joint, [[mask], [gender, age]]]}
model: {backbone: any, dropout: {float: [0.0, 0.5], step: 0.1}}
loss: {name: {choice: [cross_entropy, focal, soft_f1]}}
optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}
"""
CHILD = """
extends: base.yaml
run: {trials: 7, reduction: 2.5}
train: {batch_size: {int: [16, 64], step: 16}, accumulate: {int: [1, 8], log: true, when: {train/batch_size: [16, 32]}}}
loss:
  gamma: {float: [0.5, 4.0], when: {loss/name: focal, task: [joint]}}
  smoothing: {float: [0.0, 0.2], when: {loss/name: [cross_entropy, soft_f1]}}
view: {size: {choice: [64, [80, 60]]}}
start:
  - {task: [[mask], [gender, age]], loss: {name: focal}, optimizer: {lr: 1.0e-2}}
  - {loss: {name: cross_entropy, smoothing: 0.1}}
on_cpu:
  view: {size: 32}
"""


def unplaced(space):
    """The space but for where its words stood."""
    return replace(space, name="", file="", places={}, parameters=tuple(replace(p, place="") for p in space.parameters))


def written_and_read(space, folder):
    (folder / "space.yaml").write_text(space_text(space, "made here\nfor a test"))
    return read_space(folder / "space.yaml")


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_reads_back_as_it_was(name, on_cpu, tmp_path):
    space = read_space(name, on_cpu=on_cpu)
    assert unplaced(written_and_read(space, tmp_path)) == unplaced(space)


@pytest.mark.parametrize("changes", [(), ("loss/gamma=2", "run/epochs=3"), ("optimizer/weight_decay={float: [0.0, 0.1]}",)])
def test_what_was_extended_overlaid_and_changed_reads_back_as_one_file(tmp_path, changes):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "child.yaml").write_text(CHILD)
    space = read_space(tmp_path / "child.yaml", on_cpu=True, changes=changes)
    assert unplaced(written_and_read(space, tmp_path)) == unplaced(space)


@pytest.mark.parametrize("seed", range(5))
def test_it_draws_the_same_configurations(tmp_path, seed):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "child.yaml").write_text(CHILD)
    spaces = [read_space(tmp_path / "child.yaml")]
    spaces.append(written_and_read(spaces[0], tmp_path))
    first, again = (list(islice(random_draws(space, {"epochs": 1}, seed=seed, count=30), 30)) for space in spaces)
    assert first == again


def test_the_header_is_a_comment(tmp_path):
    assert space_text(read_space("quickstart"), "made here\nfor a test").startswith("# made here\n# for a test\nrun: {")


def test_a_written_space_names_its_extensions_first(tmp_path):
    (tmp_path / "my.yaml").write_text(BASE)
    space = read_space(tmp_path / "my.yaml")
    (tmp_path / "space.yaml").write_text(space_text(space, "of a run", ["extensions/mine.py"]))
    (tmp_path / "extensions").mkdir()
    (tmp_path / "extensions" / "mine.py").touch()
    assert unplaced(read_space(tmp_path / "space.yaml")) == unplaced(space)
    assert find_extensions(tmp_path / "space.yaml") == [tmp_path / "extensions" / "mine.py"]

from itertools import islice

import pytest

from trainables.record import RunError
from tuner import runs
from tuner.lock import LOCK
from tuner.runs import choose_folder, claim, numbered


def names():
    return numbered("quick", first="quick-1")


def test_names_begin_with_the_first_and_continue_with_numbers():
    assert list(islice(names(), 3)) == ["quick-1", "quick-2", "quick-3"]
    assert list(islice(numbered("faces-refit", first="faces-refit"), 3)) == ["faces-refit", "faces-refit-2", "faces-refit-3"]


def test_two_commands_at_once_each_have_a_run_of_their_own(tmp_path):
    with claim(tmp_path, None, names()) as first, claim(tmp_path, None, names()) as second, claim(tmp_path, None, names()) as third:
        assert [run.name for run in (first, second, third)] == ["quick-1", "quick-2", "quick-3"]


def test_a_name_that_another_command_takes_in_the_same_moment_is_left_to_it(tmp_path, monkeypatch):
    look = runs.choose_folder

    def looked_up_too_early(*args):
        run = look(*args)
        if run.name == "quick-1":
            run.mkdir()
        return run

    monkeypatch.setattr(runs, "choose_folder", looked_up_too_early)
    with claim(tmp_path, None, names()) as run:
        assert run.name == "quick-2"


def test_a_name_that_is_asked_for_while_another_command_has_it_is_refused(tmp_path):
    with claim(tmp_path, None, names()) as run:
        with pytest.raises(RunError, match="is in use by process"), claim(tmp_path, run.name, ()):
            pass
        assert (run / LOCK).is_file()


def test_a_folder_that_did_not_become_a_run_goes_again_and_one_that_did_stays(tmp_path):
    with pytest.raises(KeyError), claim(tmp_path, None, names()):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with claim(tmp_path, None, names()) as run:
        (run / "run.json").write_text("{}")
    assert [folder.name for folder in tmp_path.iterdir()] == ["quick-1"]
    with pytest.raises(RunError, match="quick-1 exists already"):
        choose_folder(tmp_path, "quick-1", ())


def test_a_folder_whose_command_was_killed_before_it_was_a_run_may_be_taken_by_its_name(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / LOCK).touch()
    with claim(tmp_path, "mine", ()) as run:
        assert run == tmp_path / "mine"

"""Who votes can be said: trials by name, trials as they are, or finished files."""

import json
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble.__main__ import Predictor, app
from analysis.members.trials import load_runs
from trainables.record import MODEL, trial_folder

PLAIN = ("--step", "none")


def call(*words):
    return CliRunner().invoke(app, list(words))


def scores(here, run="faces"):
    return json.loads((here / "runs" / run / "ensemble" / "scores.json").read_text())


def members_of(here, run="faces"):
    return [member["name"] for member in scores(here, run)["members"]]


def refused(*words):
    """What is said, where the exit code is that of a user's mistake and nothing else was done."""
    result = call(*words)
    assert result.exit_code == 2 and "Traceback" not in result.stderr and not result.stdout
    return result.stderr


def by_hand(here, names):
    """The majority of the named trials over the eval images; ties go to the higher sum of probabilities."""
    runs = load_runs([here / "runs/faces"])
    predictor = Predictor.of(runs, Console(quiet=True))
    predicted = predictor.eval(predictor.unlabelled, ("plain",), names)[0]["plain"]
    shares = np.stack([predicted[name] for name in names])
    counts = np.stack([(shares.argmax(axis=2) == number).sum(axis=0) for number in range(shares.shape[2])], axis=1)
    return (counts + shares.mean(axis=0) / 2).argmax(axis=1)


def test_the_hard_vote_of_the_three_best_trials_is_one_command_and_equals_voting_by_hand(here):
    assert call("--top", "3", "--whole", "--vote", "hard", *PLAIN).exit_code == 0
    runs = load_runs([here / "runs/faces"])
    best = sorted(runs.trials, key=lambda trial: -trial.score)[:3]
    assert sorted(members_of(here)) == sorted(trial.name for trial in best)
    submission = pd.read_csv(here / "runs/faces/ensemble/submission.csv")
    assert submission["ans"].tolist() == by_hand(here, [trial.name for trial in best]).tolist()


def test_named_trials_that_differ_in_kind_vote_hard_and_no_others(here):
    configs = {trial.name: trial.record.config for trial in load_runs([here / "runs/faces"]).trials}
    kinds = {(configs[name].loss.name, configs[name].view.crop, str(configs[name].task)) for name in ("faces/0", "faces/2", "faces/3")}
    assert len(kinds) == 3 and len({kind[0] for kind in kinds}) == len({kind[1] for kind in kinds}) == 2
    assert call("--members", "faces/0, faces/3,faces/2", "--vote", "hard", *PLAIN).exit_code == 0
    assert sorted(members_of(here)) == ["faces/0", "faces/2", "faces/3"]
    submission = pd.read_csv(here / "runs/faces/ensemble/submission.csv")
    assert submission["ans"].tolist() == by_hand(here, ["faces/0", "faces/2", "faces/3"]).tolist()


def test_named_specialists_that_share_no_target_are_one_member(here, make_run):
    for name in ("mask", "gender", "age"):
        make_run(here / "runs", f"{name}s", [{"task": name}, {"task": name}])
    runs = [word for name in ("masks", "genders", "ages") for word in ("--run", name)]
    assert call(*runs, "--members", "ages/1,masks/0,genders/1", "--vote", "soft", *PLAIN).exit_code == 0
    (member,) = scores(here, "masks")["members"]
    assert {f"{trial['run']}/{trial['number']}" for trial in member["trials"]} == {"ages/1", "masks/0", "genders/1"}
    said = refused(*runs, "--members", "ages/0,ages/1,masks/0,genders/1")
    assert "--members" in said and "masks/0" in said


def test_members_that_are_not_there_are_refused_all_at_once_with_the_nearest_names(here):
    (trial_folder(here / "runs/faces", 1) / MODEL).unlink()
    said = refused("--members", "faces/9,face/2,faces/1")
    assert all(name in said for name in ("faces/9", "face/2", "did you mean faces/2", "faces/1 has no weights"))
    assert not (here / "runs/faces/holdout.json").exists()


def test_a_margin_rule_on_images_on_which_the_two_best_disagree_answers_and_predicts_as_by_hand(here):
    rule = ("--margin", "6", "--margin-for", "age>=60", "--margin-disagree")
    assert call("--members", "faces/0,faces/3", "--vote", "best", *rule, *PLAIN).exit_code == 0
    runs = load_runs([here / "runs/faces"])
    predictor, members = Predictor.of(runs, Console(quiet=True)), members_of(here)
    predicted = predictor.eval(predictor.unlabelled, ("plain",), tuple(members))[0]["plain"]
    images = np.bincount(runs.learned.truth(runs.scheme), minlength=runs.scheme.classes)
    expected = []
    for best, other in zip(*(predicted[name] for name in members), strict=True):
        second, top = np.argsort(best)[-2:]
        old = top % 3 == 2 and second == top - 1 and np.log(best[top] / best[second]) <= 6
        expected.append(second if old and images[second] > images[top] and other.argmax() != top else top)
    submission = pd.read_csv(here / "runs/faces/ensemble/submission.csv")
    assert submission["ans"].tolist() == expected
    (step,) = scores(here)["steps"]
    assert (step["name"], step["used"], scores(here)["answer"]) == ("margin", True, "best with steps")
    assert scores(here)["settings"]["margin"]["disagree"] and len(scores(here)["models"]) == 2


def test_what_a_margin_rule_cannot_be_is_refused_by_option(here):
    assert "--margin-each" in refused("--margin-each", "--margin-for", "age>=60") and "--margin-for" in refused("--margin-for", "x=y")
    assert "--margin" in refused("--margin", "-1") and "--margin-disagree" in refused("--margin", "0.3", "--margin-disagree")
    said = refused("--margin", "0.3", "--margin-for", "age>=61", "--margin-for", "hat=worn")
    assert "did you mean age>=60" in said and "hat=worn" in said
    assert not (here / "runs/faces/holdout.json").exists()


def test_members_that_overlap_in_targets_are_refused_with_the_targets(here, make_run):
    make_run(here / "runs", "ages", [{"task": "age"}])
    assert "overlap in age" in refused("--run", "faces", "--run", "ages", "--members", "faces/0,ages/0")


def test_members_and_another_way_to_choose_are_refused_by_name(here):
    said = refused("--members", "faces/0", "--top", "2", "--per", "task")
    assert "--top" in said and "--per" in said


def test_trials_that_predict_everything_are_refused_where_there_are_none(here, make_run):
    for name in ("mask", "gender"):
        make_run(here / "runs", f"{name}s", [{"task": name}])
    assert "--whole" in refused("--run", "masks", "--run", "genders", "--whole", "--top", "1")


def write(file, rows, columns=("ImageID", "ans")):
    pd.DataFrame(rows, columns=list(columns)).to_csv(file, index=False)
    return str(file)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_submissions_vote_hard_and_a_tie_goes_to_the_file_that_comes_first(folder):
    files = [
        write(folder / "a.csv", [("x", "07"), ("y", 2), ("z", 3), ("w", 9)]),
        write(folder / "b.csv", [("w", 9), ("z", 1), ("y", 4), ("x", "07")]),
        write(folder / "c.csv", [("x", 5), ("y", 4), ("z", 0), ("w", 9)]),
    ]
    result = call("--csv", *files, "--out", "vote it.csv")
    assert result.exit_code == 0, result.output
    found = pd.read_csv(folder / "vote it.csv", dtype=str)
    assert found.to_dict("list") == {"ImageID": ["x", "y", "z", "w"], "ans": ["07", "4", "3", "9"]}
    assert "3 of 4 images" in result.stdout


@pytest.mark.parametrize("seed", range(3))
def test_submissions_of_models_of_every_size_and_normalisation_vote_hard(folder, seed):
    rng, images = np.random.default_rng(seed), [f"{number}.jpg" for number in range(40)]
    kinds = list(product((224, 384, 512), ("baseline", "whole", "imagenet")))
    answers = {kind: rng.integers(18, size=40) // 4 for kind in kinds}
    order = [rng.permutation(40) for _ in kinds]
    files = [
        write(folder / f"{size}-{normalisation}.csv", [(images[row], answers[size, normalisation][row]) for row in rows])
        for (size, normalisation), rows in zip(kinds, order, strict=True)
    ]
    assert call("--csv", *files).exit_code == 0
    found = pd.read_csv(folder / "vote.csv").set_index("ImageID")["ans"]
    # Counter keeps what came first ahead of what is as frequent.
    assert found[images].tolist() == [Counter(one.tolist()).most_common(1)[0][0] for one in np.stack(list(answers.values())).T]


def test_probabilities_vote_soft_or_hard(folder):
    columns = ("ImageID", "cat", "dog")
    files = [
        write(folder / "a.csv", [("x", 0.6, 0.4), ("y", 0.1, 0.9)], columns),
        write(folder / "b.csv", [("y", 0.3, 0.7), ("x", 0.6, 0.4)], columns),
        write(folder / "c.csv", [("x", 0.0, 1.0), ("y", 0.2, 0.8)], columns),
    ]
    assert call("--csv", *files).exit_code == 0
    found = pd.read_csv(folder / "vote.csv")
    np.testing.assert_allclose(found[["cat", "dog"]], [[0.4, 0.6], [0.2, 0.8]], atol=1e-6)
    assert call("--csv", *files, "--vote", "hard").exit_code == 0
    assert pd.read_csv(folder / "vote.csv")[["cat", "dog"]].to_numpy().argmax(axis=1).tolist() == [0, 1]


def test_of_a_table_of_predict_the_probabilities_vote(folder):
    columns = ("image", "animal", "animal probability", "P(cat)", "P(dog)", "problem", "unlike anything learned")
    files = [
        write(folder / "a.csv", [("x", "cat", 0.6, 0.6, 0.4, "", "no"), ("y", "dog", 0.9, 0.1, 0.9, "", "yes")], columns),
        write(folder / "b.csv", [("x", "dog", 0.8, 0.2, 0.8, "", "no"), ("y", "dog", 0.7, 0.3, 0.7, "", "no")], columns),
    ]
    assert call("--csv", *files).exit_code == 0
    found = pd.read_csv(folder / "vote.csv")
    assert list(found) == ["image", "P(cat)", "P(dog)"]
    np.testing.assert_allclose(found[["P(cat)", "P(dog)"]], [[0.4, 0.6], [0.2, 0.8]], atol=1e-6)


def test_the_vote_over_the_files_of_runs_is_the_vote_of_their_trials(here):
    files = []
    for number in (0, 2, 3):
        assert call("--members", f"faces/{number}", "--vote", "best", *PLAIN).exit_code == 0
        for name in ("submission", "probabilities"):
            (here / f"runs/faces/ensemble/{name}.csv").rename(here / f"{name}{number}.csv")
        files.append(number)
    assert call("--csv", *(f"probabilities{number}.csv" for number in files), "--vote", "hard").exit_code == 0
    shares = pd.read_csv("vote.csv").drop(columns="ImageID").to_numpy()
    assert shares.argmax(axis=1).tolist() == by_hand(here, ["faces/0", "faces/2", "faces/3"]).tolist()


@pytest.mark.nightly
def test_the_answers_of_trials_of_two_sizes_and_two_normalisations_vote_hard_over_their_files(here, make_run):
    trials = [{"view": {"size": size}, "normalize": normalize} for size in (32, 48) for normalize in ("imagenet", "dataset")]
    make_run(here / "runs", "kinds", trials)
    found = []
    for number in range(len(trials)):
        assert call("--run", "kinds", "--members", f"kinds/{number}", "--vote", "best", *PLAIN).exit_code == 0
        (here / "runs/kinds/ensemble/submission.csv").rename(f"kinds-{number}.csv")
        found.append(pd.read_csv(f"kinds-{number}.csv"))
    assert call("--csv", *(f"kinds-{number}.csv" for number in range(len(trials)))).exit_code == 0
    votes = np.stack([one["ans"] for one in found], axis=1)
    assert pd.read_csv("vote.csv")["ans"].tolist() == [Counter(row.tolist()).most_common(1)[0][0] for row in votes]


def test_files_of_different_images_columns_and_content_are_refused_all_at_once(folder):
    good = write(folder / "a.csv", [("x", 1), ("y", 2)])
    others = [
        write(folder / "b.csv", [("x", 1), ("q", 2)]),
        write(folder / "c.csv", [("x", 1), ("x", 2), ("y", 2)]),
        write(folder / "d.csv", [("x", 1), ("y", "")]),
        write(folder / "e.csv", [("x", 0.5, 0.9), ("y", 0.5, 0.5)], ("ImageID", "cat", "dog")),
        "gone.csv",
    ]
    said = refused("--csv", good, *others, "--out", good)
    assert all(name in said for name in ("b.csv", "q", "c.csv", "d.csv", "e.csv", "gone.csv", "--out"))
    assert not (folder / "vote.csv").exists()


@pytest.mark.parametrize("words", [("a.csv",), ("--csv",), ("--csv", "a.csv"), ("--csv", "a.csv", "a2.csv", "--vote", "soft")])
def test_files_without_their_option_or_their_number_or_their_vote_are_refused(folder, words):
    for name in ("a.csv", "a2.csv"):
        write(folder / name, [("x", 1)])
    refused(*words)


def test_options_about_trials_are_refused_beside_files_by_name(folder):
    files = [write(folder / name, [("x", 1)]) for name in ("a.csv", "b.csv")]
    said = refused("--csv", *files, "--top", "2", "--run", "faces", "--step", "none", "--whole")
    assert all(name in said for name in ("--top", "--run", "--step", "--whole"))

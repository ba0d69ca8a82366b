import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble import files
from analysis.ensemble.__main__ import Predictor, app
from analysis.ensemble.files import answer_picture
from analysis.evaluation.fitted_ensemble import ensemble_hash, read_ensemble
from analysis.evaluation.novelty import FILE as NOVELTY
from analysis.evaluation.novelty import read_novelty
from analysis.members.trials import load_runs
from analysis.pages.model_card import CARD
from analysis.predict.__main__ import app as predict
from analysis.votes import ENSEMBLES
from analysis.votes.voting import Votes
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data.layouts.reading import read_unlabelled
from trainables.data.settings import DataConfig
from trainables.metrics import METRICS
from trainables.record import MODEL, trial_folder

QUICK = ("--vote", "soft", "--step", "none")  # the rest of the choices is not what a test is about


def call(*words):
    return CliRunner().invoke(app, list(words))


def scores(here, run="faces"):
    return json.loads((here / "runs" / run / "ensemble" / "scores.json").read_text())


def refused(result):
    """The one message of a refusal."""
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


def test_the_command_chooses_votes_scores_and_writes_everything(here, people, monkeypatch):
    monkeypatch.setattr(files, "answer_picture", answer_picture)
    result = call("--top", "3", "--details")
    assert result.exit_code == 0, result.output
    folder = here / "runs" / "faces" / "ensemble"
    names = {"scores.json", "ensemble.json", "per_class.csv", "confusion.png", "submission.csv", "probabilities.csv", CARD, NOVELTY}
    assert {file.name for file in folder.iterdir()} == names
    assert "runs/faces/ensemble/" in result.stdout and all(name in result.stdout for name in names)
    found = scores(here)
    tried = {name for name, vote in ENSEMBLES.items() if vote.robust}
    assert set(found["votes"]) == {"best single", *tried} <= set(found["answers"])
    assert set(found["too_few_groups_for"]) == {name for name, vote in ENSEMBLES.items() if not vote.by_name} - tried
    assert [step["name"].split(":")[0] for step in found["steps"]] == ["calibrate", "tta", "offsets", "top_two"]
    assert len(found["members"]) == 3
    ranked = [member["valid_score"] for member in found["members"]]
    assert ranked == sorted(ranked, reverse=True)
    for number in (f"{answer['score']:.3f}" for answer in (*found["votes"].values(), *found["answers"].values())):
        assert number in result.stdout
    assert f"corrected, it is {found['optimism']['corrected']:.3f}" in result.stdout
    assert f"{1000 * found['seconds_per_photo']:.3g} ms" in result.stdout
    assert [shift["attribute"] for shift in found["shift"]] == list(found["attributes"])
    assert len(pd.read_csv(folder / "per_class.csv")) == 18
    assert min(Image.open(folder / "confusion.png").size) > 1000


def test_within_a_limit_the_best_that_costs_less_answers_and_what_else_would_is_said(here):
    assert call("--step", "none").exit_code == 0
    free = scores(here)
    most = {name: price["megabytes"] for name, price in free["prices"].items()}
    assert free["without_limit"] is None and {one["name"] for one in free["singles"]} <= {f"faces/{number}" for number in range(4)}
    result = call("--step", "none", "--max-mb", "0.5", "--max-ms", "10000")
    assert result.exit_code == 0, result.output
    found = scores(here)
    assert found["prices"][found["answer"]]["megabytes"] <= 0.5 < most[free["answer"]]
    assert found["without_limit"]["answer"] == free["answer"]
    assert found["without_limit"]["judged"]["score"] == free["votes"][free["answer"]]["score"]
    assert not missing(result.stdout, "--max-mb 0.5", f"{most[free['answer']]:.3g} MB")
    message = refused(call("--max-mb", "0.0001"))
    assert not missing(message, "--max-mb 0.0001", "faces/", "MB")


def test_predict_names_images_unlike_anything_learned_first_and_marks_them(here, people):
    call("--top", "2", *QUICK)
    folder = here / "runs/faces/ensemble"
    found, novelty = scores(here)["novelty"], read_novelty(folder, ensemble_hash(folder))
    assert found["false_alarms"] == 0.01 and found["validation"] == len(novelty.valid) and len(novelty.learned) == 2
    assert found["holdout"] < scores(here)["holdout"]["photos"] / 4
    shutil.copytree(people / "eval" / "images", here / "photos")
    for name in ("a.png", "z.png"):
        Image.effect_noise((60, 80), 120).convert("RGB").save(here / "photos" / name)
    words = ["--ensemble", "runs/faces/ensemble", "--photos", "photos", "--out", "answers.csv", "--device", "cpu"]
    result = CliRunner().invoke(predict, [*words, "--false-alarms", "0.1"])
    assert result.exit_code == 0 and not missing(result.stdout.splitlines()[0], "a.png", "z.png", "of 23 images")
    answers = pd.read_csv("answers.csv").set_index("image")
    marked = answers["unlike anything learned"] == "yes"
    assert marked[["a.png", "z.png"]].all() and marked.sum() < 10
    assert answers["distance from what was learned"].nlargest(2).index.tolist() == sorted(
        ["a.png", "z.png"], key=lambda name: -answers["distance from what was learned"][name]
    )
    few = CliRunner().invoke(predict, [*words, "--false-alarms", "0.001"])
    assert not missing(few.stdout, "--false-alarms 0.0", f"{len(novelty.valid)} validation images")
    (here / "runs/faces/ensemble" / NOVELTY).unlink()
    assert not missing(CliRunner().invoke(predict, words).stdout, "not flagged", "python -m analysis.ensemble --run faces")
    assert not [name for name in pd.read_csv("answers.csv") if "learned" in name]


def test_the_submission_lists_every_eval_image_in_order_with_its_most_probable_class(here, people):
    call(*QUICK)
    submission, probabilities = (pd.read_csv(here / "runs/faces/ensemble" / f"{name}.csv") for name in ("submission", "probabilities"))
    assert list(submission.columns) == ["ImageID", "ans"]
    assert tuple(submission["ImageID"]) == tuple(probabilities["ImageID"]) == read_unlabelled(people, DataConfig()).ids
    rows = probabilities.drop(columns="ImageID").to_numpy()
    assert rows.shape == (21, 18)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-4)
    assert (submission["ans"] == rows.argmax(axis=1)).all()


def test_the_ensemble_file_leads_to_the_models_and_answers_as_the_submission_does(here):
    call("--top", "2", "--vote", "hard", "--step", "offsets")
    folder = here / "runs/faces/ensemble"
    found = read_ensemble(folder)
    assert len(found.pipeline.members) == 2
    assert found.pipeline.ensemble == Votes()
    assert [step.kind for step in found.pipeline.steps] == ["offsets"]
    assert all((here / "runs" / model).is_file() for models in found.models.values() for model in models)
    runs = load_runs([here / "runs/faces"])
    predictor = Predictor.of(runs, Console(quiet=True))
    eval_images = predictor.eval(predictor.unlabelled, found.pipeline.looks, found.pipeline.trials)[0]["plain"]
    submission = pd.read_csv(folder / "submission.csv")
    assert (found.pipeline(eval_images).argmax(axis=1) == submission["ans"]).all()


@pytest.mark.parametrize("vote", nightly_after(1, ["greedy", "soft"]))
def test_a_vote_that_is_asked_for_answers_and_with_safe_only_where_it_is_significantly_better(here, vote):
    call("--vote", vote, "--step", "none", "--safe")
    found = scores(here)
    assert (found["vote"], found["answer"], found["supported"], found["safe"]) == (vote, "best single", False, True)
    call("--vote", vote, "--step", "none")
    found = scores(here)
    assert (found["answer"], found["supported"], found["safe"]) == (vote, False, False)
    assert 0 < found["votes"][vote]["p"] <= 1


def test_greedy_over_all_trials_answers_with_the_few_that_it_picks(here):
    call("--top", "1", "--vote", "greedy_all", "--step", "none")
    found, pipeline = scores(here), read_ensemble(here / "runs/faces/ensemble").pipeline
    assert found["answer"] == "greedy_all"
    assert [member["name"] for member in found["members"]] == [str(member) for member in pipeline.members]
    assert [member["weight"] for member in found["members"]] == list(pipeline.ensemble.weights)


def test_the_best_score_on_groups_that_it_was_not_fitted_on_answers_and_auto_is_the_vote_with_it_the_first_when_tied(here):
    call("--step", "none")
    found = scores(here)
    evaluated = {name: vote["score"] for name, vote in found["votes"].items()}
    assert evaluated[found["answer"]] == max(evaluated.values())
    del evaluated["best single"]
    assert found["vote"] == max(evaluated, key=evaluated.get)


def test_steps_are_taken_when_asked_for_and_none_when_none_is_wanted(here):
    call("--vote", "soft", "--step", "none")
    assert scores(here)["steps"] == []
    result = call("--vote", "soft", "--step", "top_two", "--step", "calibrate", "--details")
    found = scores(here)
    assert [(step["name"], step["asked"], step["used"]) for step in found["steps"]] == [("calibrate", True, True), ("top_two", True, True)]
    assert found["answer"] == "soft with steps"
    assert "soft vote with its steps" in result.stdout
    assert "used, as asked" in result.stdout


@pytest.mark.parametrize("words, kinds", [(("--per", "backbone"), 2), (("--per", "task"), 3), (("--diverse",), None)])
def test_members_can_be_chosen_for_diversity(here, words, kinds):
    assert call("--top", "2", *QUICK[:2], "--step", "none", *words).exit_code == 0
    chosen = [member["trials"][0]["config"] for member in scores(here)["members"]]
    if kinds:
        path = {"backbone": lambda config: config["model"]["backbone"], "task": lambda config: str(config["task"])}[words[1]]
        assert len({path(config) for config in chosen}) == 2


def test_one_member_gains_nothing_over_itself(here):
    call("--top", "1", "--vote", "soft", "--step", "none")
    found = scores(here)
    assert found["answers"]["soft"]["score"] == found["members"][0]["holdout_score"]


def questions(here, run="faces"):
    return scores(here, run)["holdout"]["questions"]


def test_how_often_the_holdout_was_asked_something_else_is_counted_and_shown(here):
    for count, more in [
        (1, ("--vote", "soft")),
        (2, ("--vote", "hard")),
        (2, ("--vote", "hard", "--seed", "1")),
        (3, ("--top", "2", *QUICK[:2])),
    ]:
        result = call(*more, "--step", "none")
        assert len(questions(here)) == count
        assert (f"scored {count} different answers" in result.stdout) is (count > 1)
    (here / "runs/faces/ensemble/scores.json").write_text("{")
    call("--vote", "soft", "--step", "none")
    assert [one["vote"] for one in questions(here)] == ["hard", "soft", "soft"]


def test_a_look_and_all_that_it_shows_are_on_disk_before_anything_is_printed(here, monkeypatch):
    call("--vote", "hard", "--step", "none")
    printed = []

    def killed(runs, outcome):
        printed.append([len(json.loads((here / "runs/faces/holdout.json").read_text())["questions"]), len(questions(here))])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("analysis.ensemble.__main__.answer_lines", killed)
        result = call(*QUICK, "--top", "2")
    assert printed == [[2, 2]] and not result.stdout


@pytest.mark.parametrize("writer", ["write_ensemble", "write_json"])
def test_however_early_writing_ends_the_scores_are_of_the_ensemble_beside_them_or_gone_and_the_question_is_counted(
    here, monkeypatch, writer
):
    call("--vote", "hard", "--step", "none")

    def killed(*words):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"analysis.ensemble.files.{writer}", killed)
        call(*QUICK)
    assert not (here / "runs/faces/ensemble/scores.json").exists()
    assert len(json.loads((here / "runs/faces/holdout.json").read_text())["questions"]) == 2


def test_questions_that_an_earlier_version_wrote_into_its_scores_are_counted(here):
    call(*QUICK)
    (here / "runs/faces/holdout.json").unlink()
    call("--vote", "hard", "--step", "none")
    assert [one["vote"] for one in questions(here)] == ["soft", "hard"]


def test_questions_count_for_every_run_of_one_split_in_whichever_order_runs_are_named(here, make_run):
    for name in ("masks", "genders", "ages"):
        make_run(here / "runs", name, [{"task": name.removesuffix("s")}])
    make_run(here / "runs", "elsewhere", [{"task": "joint"}], seed=1)
    runs = [("--run", name) for name in ("masks", "genders", "ages")]
    for order in (runs, runs[::-1]):
        call("--top", "1", *QUICK, *(word for pair in order for word in pair))
    assert len(questions(here, "ages")) == 1
    call("--run", "faces", *QUICK)
    assert len(questions(here)) == 2
    call("--run", "elsewhere", "--top", "1", *QUICK)
    assert len(questions(here, "elsewhere")) == 1


def test_trials_that_lost_their_weights_count_in_how_optimistic_the_best_score_is(here):
    call(*QUICK, "--top", "2")
    before = scores(here)
    (trial_folder(here / "runs/faces", 0) / MODEL).unlink()
    call(*QUICK, "--top", "2")
    after = scores(here)
    assert before["optimism"] == after["optimism"] and after["optimism"]["members"] == before["members_to_choose_from"]
    assert after["members_to_choose_from"] < before["members_to_choose_from"]


@pytest.mark.parametrize("metric", ["accuracy", "neg_log_loss"])
def test_a_run_of_another_metric_is_answered_by_it(here, metric):
    file = here / "runs/faces/run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metric": metric}))
    result = call("--top", "2", "--step", "none")
    assert result.exit_code == 0, result.output
    assert METRICS[metric].title in result.stdout and "macro F1" not in result.stdout
    assert scores(here)["metric"] == metric


def test_the_same_seed_gives_the_same_scores(here):
    answers = []
    for seed in ("5", "5", "6"):
        call(*QUICK, "--seed", seed)
        answers.append(scores(here)["answers"])
    first, again, other = answers
    assert first == again != other


def test_where_more_are_asked_for_than_there_are_all_are_taken_and_it_is_said(here):
    result = call("--top", "99", *QUICK)
    there = len(scores(here)["members"])
    assert result.exit_code == 0 and 4 <= there < 99
    assert f"{there}, fewer than --top 99" in result.stdout


def test_the_newest_run_is_taken_and_a_run_named_twice_counts_once(here):
    call("--top", "4", *QUICK)
    newest = scores(here)["members"]
    assert call("--top", "4", *QUICK, "--run", "faces", "--run", "runs/faces").exit_code == 0
    assert scores(here)["members"] == newest


def test_specialists_of_several_runs_form_a_member_that_answers(here, make_run):
    for name in ("mask", "gender", "age"):
        make_run(here / "runs", f"{name}s", [{"task": name}])
    result = call("--run", "masks", "--run", "genders", "--run", "ages", "--top", "1", *QUICK)
    assert result.exit_code == 0, result.output
    (member,) = scores(here, "masks")["members"]
    assert [trial["run"] for trial in member["trials"]] == ["masks", "genders", "ages"]
    assert (here / "runs/masks/ensemble/submission.csv").is_file()


def test_a_run_that_covers_a_part_is_scored_on_it_and_takes_an_old_submission_away(here, make_run):
    made = make_run(here / "runs", "ages", [{"task": "age"}, {"task": "age"}])
    (made.folder / "ensemble").mkdir()
    (made.folder / "ensemble" / "submission.csv").write_text("of other members")
    result = call("--run", "ages", "--top", "2", *QUICK)
    assert result.exit_code == 0, result.output
    assert scores(here, "ages")["attributes"] == ["age"]
    assert not (made.folder / "ensemble" / "submission.csv").exists()


def test_data_without_eval_images_gets_no_submission_and_one_line_why(here, people, make_run):
    data = here / "labelled"
    shutil.copytree(people / "train", data / "train")
    make_run(here / "runs", "plain", [{"task": "joint"}], data=data)
    result = call("--run", "plain", "--top", "1", *QUICK)
    assert str(data) in result.stdout
    assert not (here / "runs/plain/ensemble/submission.csv").exists()


def test_eval_images_that_cannot_be_decoded_are_named_counted_and_answered(here, people, make_run):
    data = shutil.copytree(people, here / "people")
    images = read_unlabelled(data, DataConfig())
    (images.root / images.ids[0]).write_bytes(b"no image")
    make_run(here / "runs", "black", [{"task": "joint"}], data=data)
    result = call("--run", "black", "--top", "1", *QUICK)
    assert result.exit_code == 0, result.output
    (named,) = [one for one in scores(here, "black")["left_out"] if images.ids[0] in one]
    assert named.startswith("1 ")
    assert len(pd.read_csv(here / "runs/black/ensemble/submission.csv")) == len(images.ids)


def test_a_damaged_record_is_named_and_the_others_vote(here):
    (trial_folder(here / "runs" / "faces", 2) / "config.json").write_text("{")
    result = call("--top", "3", *QUICK)
    assert result.exit_code == 0
    assert any("faces/2" in line for line in result.stdout.splitlines() if line.startswith("Left out"))


def test_runs_of_different_splits_are_refused(here, make_run):
    make_run(here / "runs", "other", [{"task": "joint"}], seed=1)
    assert not missing(refused(call("--run", "faces", "--run", "other")), "faces and other ", "split hashes")


def test_configurations_trained_on_every_fold_are_evaluated_on_all_groups_and_fold_by_fold(here, make_run):
    make_run(here / "runs", "folds", [{"task": "joint"}, {"task": "heads"}], refit_of="faces")
    result = call("--run", "folds", "--top", "2", "--vote", "soft", "--step", "tta")
    assert result.exit_code == 0, result.output
    assert re.search(r"fold 0 0\.\d{3}, fold 1 0\.\d{3}", " ".join(result.stdout.split()))
    found = scores(here, "folds")
    assert found["validation"]["side"] == "every fold"
    assert {trial["models"] for member in found["members"] for trial in member["trials"]} == {2}


def test_other_transforms_of_validation_images_are_those_of_models_that_have_not_seen_the_image(here, make_run):
    made = make_run(here / "runs", "folds", [{"task": "joint"}], refit_of="faces")
    runs = load_runs([made.folder])
    (trial,) = runs.trials
    predicted = Predictor.of(runs, Console(quiet=True)).validation(("plain",), (trial.name,))
    np.testing.assert_array_equal(predicted["plain"][trial.name], trial.valid)


def test_passes_of_monte_carlo_dropout_answer_where_they_are_asked_for_and_predict_says_how_far_apart_they_are(
    tmp_path, make_run, people, monkeypatch
):
    dropping = {"backbone": "test_efficientnet", "weights": "none", "dropout": 0.3}
    bare = dropping | {"dropout": 0.0}
    make_run(tmp_path / "runs", "dropping", [{"model": dropping}, {"model": dropping, "task": "heads"}, {"model": bare}])
    monkeypatch.chdir(tmp_path)
    words = ("--run", "dropping", *QUICK, "--mc-dropout", "3")
    done = call(*words)
    assert done.exit_code == 0 and "dropping/2: no dropout" in done.output
    first = json.loads(Path("runs/dropping/ensemble/ensemble.json").read_text())
    assert first["pipeline"]["looks"] == ["dropout 1", "dropout 2", "dropout 3"]
    found = scores(tmp_path, "dropping")
    (step,) = [one for one in found["steps"] if one["name"].startswith("mc_dropout")]
    assert (step["name"], step["used"], step["asked"], step["price"]) == ("mc_dropout: 3 passes", True, True, 3.0)
    assert call(*words).exit_code == 0 and scores(tmp_path, "dropping")["answers"] == found["answers"]

    photos = people / "eval" / "images"
    for out in ("a.csv", "b.csv"):
        done = CliRunner().invoke(
            predict, ["--ensemble", "runs/dropping/ensemble", "--photos", str(photos), "--out", out, "--device", "cpu"]
        )
        assert done.exit_code == 0, done.output
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    table = pd.read_csv("a.csv")
    submitted = pd.read_csv("runs/dropping/ensemble/submission.csv", index_col="ImageID")["ans"]
    assert (table["mutual information of passes"] > 0).all()
    assert table.set_index("image")["joint class"].to_dict() == submitted.to_dict()


def test_a_trial_without_dropout_has_no_passes_to_average(here):
    said = refused(call("--run", "faces", "--members", "faces/0", "--mc-dropout", "3"))
    assert not missing(said, "--mc-dropout", "faces/0", "model/dropout", "--members")
    assert "--step tta" in refused(call("--run", "faces", "--mc-dropout", "3", "--step", "tta"))
    assert "--mc-dropout" in refused(call("--csv", "a.csv", "b.csv", "--mc-dropout", "3"))

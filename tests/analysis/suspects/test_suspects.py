import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.evaluation.label_issues import Noise, evaluate, find_suspects, fit_noise, is_constant, sharpened, wrong_probability
from analysis.members.trials import Sample, load_runs
from analysis.suspects.__main__ import app
from tests.messages import missing
from trainables.data.targets import Classes, Scheme
from trainables.record import RunError, read_predictions, trial_folder, write_predictions

COLOUR = Classes("colour", ("red", "green", "blue"))


def drawn(rng, groups, shots, sharpness, by_group):
    """A sample of one attribute whose labels are as its calibrated probabilities say."""
    scheme = Scheme((COLOUR,))
    group = np.repeat(np.arange(groups), shots)
    logs = np.log(rng.dirichlet(np.ones(3), size=groups if by_group else groups * shots)) * sharpness
    chances = sharpened(logs, 1.0)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    if by_group:
        chances, labels = chances[group], labels[group]
    ids = tuple(f"{number}/{index % shots}.jpg" for index, number in enumerate(group))
    return Sample(ids, group, labels[:, None], scheme, np.full(len(ids), "fold 0")), chances


def planted_wrong(rng, sample, count):
    """The groups who are given another colour now."""
    chosen = rng.choice(np.unique(sample.groups), size=count, replace=False)
    for group in chosen:
        sample.labels[sample.groups == group] = (sample.labels[sample.groups == group] + rng.integers(1, 3)) % 3
    return set(chosen.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_groups_with_a_wrong_label_are_the_first_suspects(seed):
    rng = np.random.default_rng(seed)
    sample, chances = drawn(rng, groups=300, shots=4, sharpness=6, by_group=True)
    wrong = planted_wrong(rng, sample, 20)
    _, by_group, found = evaluate(sample, COLOUR, chances)
    first = sorted(found, key=lambda suspect: -suspect.score)[:20]
    assert by_group and {suspect.kind for suspect in found} == {"person"}
    assert all(len(suspect.images) == 4 for suspect in found)
    assert len(wrong & {suspect.group for suspect in first}) >= 14
    assert len(wrong & {suspect.group for suspect in found}) >= 16


@pytest.mark.parametrize("seed", range(5))
def test_swapped_shots_are_one_suspect_of_two_images(seed):
    rng = np.random.default_rng(seed)
    sample, chances = drawn(rng, groups=100, shots=5, sharpness=12, by_group=False)
    sure = chances.max(axis=1) > 0.95
    swapped = {}
    for group in rng.permutation(100).tolist():
        rows = np.flatnonzero((sample.groups == group) & sure & (chances.argmax(axis=1) == sample.labels[:, 0]))
        other = [row for row in rows if sample.labels[row, 0] != sample.labels[rows[0], 0]] if len(rows) else []
        if other and len(swapped) < 5:
            pair = [rows[0], other[0]]
            swapped[tuple(sample.ids[row] for row in pair)] = [COLOUR.values[value] for value in sample.labels[pair, 0][::-1]]
            sample.labels[pair] = sample.labels[pair[::-1]]
    _, by_group, found = evaluate(sample, COLOUR, chances)
    swaps = {tuple(sorted(suspect.images)): suspect for suspect in found if suspect.kind == "swap"}
    assert not by_group
    assert len(swapped.keys() & swaps.keys()) >= 4
    for images in swapped.keys() & swaps.keys():
        given = dict(zip(images, swapped[images], strict=True))
        assert {image: was for image, was, _ in swaps[images].changes()} == given
        assert {image: now for image, _, now in swaps[images].changes()} == dict(zip(images, swapped[images][::-1], strict=True))
    named = [image for suspect in found for image in suspect.images]
    assert len(named) == len(set(named)), "no image is named twice"


@pytest.mark.parametrize("by_group", [True, False])
def test_what_sure_models_confirm_is_not_suspect(by_group):
    sample, _ = drawn(np.random.default_rng(0), groups=80, shots=3, sharpness=6, by_group=by_group)
    chances = np.full((len(sample.ids), 3), 0.02)
    chances[np.arange(len(chances)), sample.labels[:, 0]] = 0.96
    assert evaluate(sample, COLOUR, chances)[2] == []


@pytest.mark.parametrize("seed", range(5))
def test_right_labels_that_are_hard_to_see_are_hardly_suspect(seed):
    sample, chances = drawn(np.random.default_rng(seed), groups=400, shots=2, sharpness=1, by_group=True)
    noise, _, found = evaluate(sample, COLOUR, chances)
    assert (chances.argmax(axis=1) != sample.labels[:, 0]).mean() > 0.25
    assert noise.wrong < 0.1
    assert sum(suspect.score > 0.5 for suspect in found) < 0.02 * 400


def test_a_mistake_that_is_easy_to_see_comes_before_a_surprise_that_is_not():
    rng = np.random.default_rng(0)
    easy, sure = drawn(rng, groups=300, shots=2, sharpness=8, by_group=True)
    hard, unsure = drawn(rng, groups=300, shots=2, sharpness=1, by_group=True)
    wrong = planted_wrong(rng, easy, 10)
    mistakes = [suspect.score for suspect in evaluate(easy, COLOUR, sure)[2] if suspect.group in wrong]
    surprises = [suspect.score for suspect in evaluate(hard, COLOUR, unsure)[2]]
    assert np.median(mistakes) > max(surprises)


@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("too_sure", [0.5, 1.0, 2.0])
def test_the_share_of_wrong_labels_and_the_models_sureness_are_estimated_apart(share, too_sure):
    rng = np.random.default_rng(0)
    sample, chances = drawn(rng, groups=4000, shots=1, sharpness=4, by_group=False)
    planted_wrong(rng, sample, int(share * 4000))
    noise = fit_noise(too_sure * np.log(np.maximum(chances, 1e-12)), sample.labels[:, 0])
    assert noise.wrong == pytest.approx(share, rel=0.35)
    assert noise.sharpness == pytest.approx(1 / too_sure, rel=0.2)


def test_scores_are_probabilities_as_many_labels_are_wrong_as_they_add_up_to():
    rng = np.random.default_rng(0)
    sample, chances = drawn(rng, groups=6000, shots=1, sharpness=4, by_group=False)
    wrong = np.isin(sample.groups, list(planted_wrong(rng, sample, 300)))
    logs, given = np.log(np.maximum(chances, 1e-12)), sample.labels[:, 0]
    noise = fit_noise(logs, given)
    scores = wrong_probability(sharpened(logs, noise.sharpness), given, noise)
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1)):
        some = (scores >= low) & (scores <= high)
        assert scores[some].mean() == pytest.approx(wrong[some].mean(), abs=0.12)


def test_a_score_is_what_counting_all_ways_to_the_given_label_says():
    chances, given, noise = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]]), np.array([1, 0]), Noise(1.0, 0.03)
    for row, label, score in zip(chances, given, wrong_probability(chances, given, noise), strict=True):
        ways = [chance * (1 - noise.wrong if value == label else noise.wrong / 2) for value, chance in enumerate(row)]
        assert score == pytest.approx(1 - ways[label] / sum(ways))


def test_one_image_of_a_group_that_was_given_otherwise_is_suspect_alone():
    rng = np.random.default_rng(0)
    sample, chances = drawn(rng, groups=200, shots=5, sharpness=8, by_group=True)
    row = int(np.flatnonzero(chances[:, 0] > 0.98)[0])
    sample.labels[row] = 1
    _, by_group, found = evaluate(sample, COLOUR, chances)
    (suspect,) = [one for one in found if sample.ids[row] in one.images]
    assert by_group
    assert (suspect.images, suspect.given, suspect.suggested) == ((sample.ids[row],), "green", "red")


@pytest.mark.parametrize(("odd", "constant"), [(0, True), (1, True), (2, False)])
def test_an_attribute_is_the_groups_when_99_of_100_agree_on_all_images(odd, constant):
    group, given = np.concatenate([np.repeat(np.arange(100), 3), np.arange(100, 150)]), np.zeros(350, dtype=int)
    given[: 3 * odd : 3] = 1
    assert is_constant(group, given) is constant


def test_where_every_group_has_one_image_images_are_evaluated():
    assert is_constant(np.arange(20), np.zeros(20, dtype=int)) is False


@pytest.mark.parametrize("values", [2, 3])
def test_an_attribute_of_which_only_one_value_was_given_has_no_suspects(values):
    target = Classes("kind", tuple("abc"[:values]))
    sample = Sample(("1", "2", "3"), np.arange(3), np.zeros((3, 1), dtype=int), Scheme((target,)), np.full(3, "fold 0"))
    assert evaluate(sample, target, np.full((3, values), 1 / values))[2] == []


def test_each_attribute_is_evaluated_by_the_trials_that_are_best_at_it(make_run, faces, tmp_path):
    other = make_run(tmp_path, "other", [{"task": "age"}])
    runs = load_runs([faces.folder, other.folder])
    found = find_suspects(runs, top=2)
    assert [one.target for one in found.evaluations] == ["mask", "gender", "age"]
    for one in found.evaluations:
        part = runs.scheme.part((one.target,))
        scores = {
            trial.name: runs.valid.score(runs.metric, part, trial.task.scheme.marginal(part.names, trial.valid))
            for trial in runs.trials
            if one.target in trial.task.scheme.names
        }
        assert [scores[name] for name in one.trials] == sorted(scores.values(), reverse=True)[:2]
    assert find_suspects(load_runs([other.folder]), top=9).uncovered == ("mask", "gender")


def test_planted_errors_of_a_run_are_all_found_and_nothing_else(planted):
    found = find_suspects(load_runs([planted.made.folder]), top=3)
    wrong = {suspect.images[0].split("/")[0]: suspect.suggested for suspect in found.suspects if suspect.kind == "person"}
    assert wrong == planted.groups
    (swap,) = [suspect for suspect in found.suspects if suspect.kind != "person"]
    assert (swap.kind, sorted(swap.images), swap.target) == ("swap", sorted(planted.swapped), "mask")
    assert [suspect.score for suspect in found.suspects] == sorted((suspect.score for suspect in found.suspects), reverse=True)
    assert min(suspect.score for suspect in found.suspects) > 0.5
    assert {one.target: one.by_group for one in found.evaluations} == {"mask": False, "gender": True, "age": True}


# The command


@pytest.fixture
def here(planted, tmp_path, monkeypatch):
    """A folder with a copy of the run in runs/."""
    shutil.copytree(planted.made.folder, tmp_path / "runs" / "planted")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, list(words))


def rows_of(file):
    return list(csv.DictReader(file.open(newline="")))


def test_the_command_names_every_suspect_and_every_group_that_was_not_evaluated(here, planted):
    result = call("--run", "planted")
    assert result.exit_code == 0, result.output
    folder = here / "runs/planted/suspects"
    assert {file.name for file in folder.iterdir()} == {"index.html", "suspects.csv", "unjudged.csv", "noise.json"}
    rows = rows_of(folder / "suspects.csv")
    assert list(rows[0]) == ["rank", "kind", "photo", "person", "attribute", "given", "suggested", "score"]
    assert {row["person"]: row["suggested"] for row in rows if row["kind"] == "person"} == planted.groups
    assert {row["photo"] for row in rows if row["kind"] == "swap"} == set(planted.swapped)
    assert len({row["rank"] for row in rows}) == 4 and len(rows) == 3 * 7 + 2
    images, split = planted.made.images, planted.made.split
    held_out = {images.names[index] for index in split.holdout}
    assert {row["person"]: row["part"] for row in rows_of(folder / "unjudged.csv")} == dict.fromkeys(held_out, "holdout")
    assert f"{len(held_out)} groups " in result.stdout
    assert "4 label issues" in result.stdout
    assert "Only fold" not in result.stdout


def test_a_search_evaluates_one_fold_and_says_how_to_evaluate_all(faces, tmp_path, monkeypatch):
    shutil.copytree(faces.folder, tmp_path / "runs" / "faces")
    monkeypatch.chdir(tmp_path)
    result = call("--top", "1")
    assert result.exit_code == 0, result.output
    valid, groups = np.unique(faces.images.groups[faces.split.valid]), np.unique(faces.images.groups)
    assert not missing(result.stdout, "fold 0", f"{len(valid)} of {len(groups)} groups")
    commands = "tuner.refit --run faces --top 3 --folds 2 --name faces-folds", "analysis.suspects --run faces-folds"
    assert not missing(result.stdout, *commands)
    unevaluated = rows_of(tmp_path / "runs/faces/suspects/unjudged.csv")
    assert {row["part"] for row in unevaluated} == {"fold 1", "holdout"}
    assert len(unevaluated) == len(groups) - len(valid)


def test_labels_that_the_models_confirm_leave_an_empty_table_and_a_page_that_says_so(here, planted):
    images = planted.made.images
    for number in range(2):
        folder = trial_folder(here / "runs/planted", number)
        saved = read_predictions(folder)
        labels = images.labels[[images.ids.index(name) for name in saved.ids]]
        heads = [np.eye(size)[labels[:, column]] for column, size in enumerate(images.scheme.sizes)]
        write_predictions(folder, type(saved)(saved.ids, heads, saved.epoch))
    result = call()
    assert result.exit_code == 0, result.output
    assert rows_of(here / "runs/planted/suspects/suspects.csv") == []
    assert "No label issue was found" in (here / "runs/planted/suspects/index.html").read_text()


def test_images_that_are_gone_are_named_and_the_others_shown(here, planted):
    data = here / "data"
    shutil.copytree(planted.made.images.root.parents[1], data)
    gone, broken = planted.swapped
    (data / "train/images" / gone).unlink()
    (data / "train/images" / broken).write_bytes(b"no image")
    move_data(here, data)
    result = call()
    assert result.exit_code == 0, result.output
    assert "left out: 2 images" in unwrapped(result) and f"{gone}, {broken}" in unwrapped(result)
    page = (here / "runs/planted/suspects/index.html").read_text()
    assert page.count("cannot be opened</span>") == 2
    assert page.count("<img ") - page.count('alt="Heat map') == 3 * 7


def test_without_the_data_the_table_is_complete_and_the_page_without_pictures(here, planted):
    move_data(here, here / "nowhere")
    result = call()
    assert result.exit_code == 0, result.output
    assert not missing(result.output, "left out: all images", "planted")
    assert len(rows_of(here / "runs/planted/suspects/suspects.csv")) == 3 * 7 + 2
    assert "<img " not in (here / "runs/planted/suspects/index.html").read_text()


def test_the_page_shows_so_many_and_the_table_all(here):
    call("--most", "1")
    assert (here / "runs/planted/suspects/index.html").read_text().count('<li class="card"') == 1
    assert len({row["rank"] for row in rows_of(here / "runs/planted/suspects/suspects.csv")}) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--run", "plnted"), "'plnted' in runs/; there are planted"), (("--top", "0"), "--top is 0")],
)
def test_a_users_mistake_is_reported_without_a_traceback(here, words, message):
    result = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.output


def move_data(here, data):
    card = here / "runs/planted/run.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"data": str(data)}))


def unwrapped(result):
    return result.stdout.replace("\n", " ")


def test_find_suspects_refuses_no_trials(planted):
    with pytest.raises(RunError, match="--top is 0"):
        find_suspects(load_runs([planted.made.folder]), top=0)

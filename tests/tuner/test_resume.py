import hashlib
import io
import json
import shutil
from dataclasses import replace

import pytest
import torch

from search_spaces.read import read_space
from search_spaces.schema import nested
from tests.conftest import edit
from tests.messages import missing, mistaken
from tests.tuner.stoppers.reports import none_spared, pruner_of
from trainables.config import TrialConfig
from trainables.record import (
    LAST,
    MODEL,
    SPACE,
    Decision,
    RunCard,
    RunError,
    end_record,
    read_decisions,
    read_json,
    read_last,
    read_predictions,
    read_record,
    trial_folder,
    write_decisions,
    write_json,
    write_predictions,
    write_reports,
    write_run,
)
from trainables.trial import Job, train
from tuner.resume import Stock, fits, settle, take_stock
from tuner.runs import open_earlier, refuse_changes, with_cuts
from tuner.searchers.random import random_draws

SEARCHED = """
task: joint
data: {holdout: 0.2, folds: 2}
view: {size: 32}
model: {backbone: test_efficientnet, weights: none}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 3.0], when: {loss/name: focal}}
optimizer: {lr: {float: [1.0e-6, 1.0e-2], log: true}}
train: {batch_size: 32}
"""
EPOCHS = 4
FIXED = {"epochs": EPOCHS, "seed": 0}
CARD = RunCard("faces", "tiny", "photos", (30, 60), 0, "abcd", (("mask", ("worn", "absent"), ()),), EPOCHS, 8, "python -m tuner.run")


class Died(Exception):
    """What ends a trial from outside."""


def written_space(folder, text):
    file = folder / "my.yaml"
    file.write_text(text)
    return read_space(file)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return written_space(tmp_path_factory.mktemp("space"), SEARCHED)


@pytest.fixture(scope="module")
def trained(data, make_config, tmp_path_factory):
    """Real records: trial 0 was cut off after epoch 2 of 4, trial 1 ran to its end."""
    job = Job(tmp_path_factory.mktemp("runs") / "trained", data, "0.1", threads=1)
    threads = torch.get_num_threads()

    def report(values):
        if values["epoch"] == 2 and values["number"] == 0:
            raise Died

    with pytest.raises(Died):
        train(0, make_config(epochs=EPOCHS), job, report)
    train(1, make_config(epochs=EPOCHS), job, report)
    torch.set_num_threads(threads)
    return job.run


@pytest.fixture
def put(trained, tmp_path):
    """Put a trial into the run: at work in its third epoch, or through, with other settings and another end as wished."""
    run = tmp_path / "run"
    write_run(run, CARD)

    def put(number, *, through=False, scores=None, decisions=(), end=None, **settings):
        folder = trial_folder(run, number)
        shutil.copytree(trial_folder(trained, 1 if through else 0), folder)
        if through:
            edit(folder / "result.json", state="interrupted", reason="its process died")
        changed = json.loads((folder / "config.json").read_text())
        for path, value in settings.items():
            section, _, name = path.partition("__")
            (changed[section] if name else changed)[name or section] = value
        write_json(folder / "config.json", changed)
        if scores:
            lines = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
            write_reports(folder, [line | {"score": score} for line, score in zip(lines, scores, strict=True)])
        if decisions:
            write_decisions(folder, decisions)
        if end:
            end_record(folder, *end)
        return folder

    put.run = run
    return put


def numbers(records):
    return [record.number for record in records]


def asha_of(decided=None, *, grace=2, reduction=2, spared=none_spared):
    decided = [] if decided is None else decided
    return pruner_of(grace=grace, reduction=reduction, epochs=EPOCHS, spared=spared, decided=lambda *decision: decided.append(decision))


def snapshot(folder):
    """Every file's content and time of change, and every folder."""
    files = sorted(folder.rglob("*"))
    return [(str(f), f.is_file() and (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns)) for f in files]


# Opening a run


def test_a_run_is_opened_with_its_card_and_the_space_in_effect_under_its_name(tmp_path):
    write_run(tmp_path / "faces", CARD)
    (tmp_path / "faces" / SPACE).write_text(SEARCHED)
    earlier = open_earlier(str(tmp_path / "faces"))
    assert (earlier.run, earlier.card, earlier.space.name) == (tmp_path / "faces", CARD, "tiny")
    assert [parameter.path for parameter in earlier.space.parameters] == ["loss/name", "loss/gamma", "optimizer/lr"]


def test_a_run_whose_space_is_gone_is_opened_without(tmp_path):
    write_run(tmp_path / "faces", CARD)
    assert open_earlier(str(tmp_path / "faces")).space is None


def test_a_run_is_not_opened_over_a_space_that_cannot_be_read(tmp_path):
    write_run(tmp_path / "faces", CARD)
    (tmp_path / "faces" / SPACE).write_text("loss: {name: {choice: []}}")
    with pytest.raises(RunError, match=rf"(?s)faces/{SPACE} .*:1: loss/name.*--space"):
        open_earlier(str(tmp_path / "faces"))


def test_a_run_that_is_not_there_or_whose_card_is_damaged_is_refused_in_words(tmp_path):
    with pytest.raises(RunError, match="there is no run"):
        open_earlier(str(tmp_path / "faces"))
    write_run(tmp_path / "faces", CARD)
    (tmp_path / "faces" / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run.json is damaged .*restore it"):
        open_earlier(str(tmp_path / "faces"))


# What may not change


def test_a_run_resumes_with_the_same_metric_seed_and_split_whatever_else_is_edited(space, tmp_path):
    edited = written_space(tmp_path, SEARCHED.replace("size: 32", "size: 48").replace("[0.5, 3.0]", "[1.0, 2.0]"))
    refuse_changes(CARD, space, edited, None)
    refuse_changes(CARD, space, edited, CARD.seed)
    refuse_changes(CARD, None, edited, None)


def test_a_run_keeps_the_cuts_that_were_once_the_default(space, tmp_path):
    edited = written_space(tmp_path, SEARCHED.replace("{holdout", "{cuts: [30, 60], holdout"))
    assert CARD.cuts == (30, 60) and "data/cuts" not in space.fixed
    refuse_changes(CARD, with_cuts(space, CARD), with_cuts(edited, CARD), None)
    values = {"loss/name": "cross_entropy", "optimizer/lr": 1e-3, "data/cuts": [30, 60]} | space.fixed | FIXED
    assert fits(with_cuts(space, CARD), TrialConfig.from_values(nested(values)).values(), FIXED)
    assert with_cuts(space, replace(CARD, cuts=())) == space


def test_everything_about_which_old_and_new_trials_would_not_agree_is_named_at_once(space, tmp_path):
    edited = written_space(tmp_path, SEARCHED.replace("{holdout: 0.2, folds: 2}", "{cuts: [20, 40], holdout: 0.3, fold: 1}"))
    with pytest.raises(RunError) as caught:
        refuse_changes(replace(CARD, metric="accuracy"), with_cuts(space, CARD), with_cuts(edited, CARD), 7)
    first, *mistakes, last = str(caught.value).splitlines()
    assert "faces" in first and last
    expected = [
        ("  run/metric ", "accuracy", "f1_macro"),
        ("  --seed ", "7", "0"),
        ("  data/cuts ", "[30, 60]", "[20, 40]"),
        ("  data/holdout ", "0.2", "0.3"),
        ("  data/folds ", "2", "5"),
        ("  data/fold ", "0", "1"),
    ]
    assert not mistaken(mistakes, expected)


# Which configurations a space can draw

WIDE = """
task: {choice: [joint, [[mask], [gender, age]]]}
view: {size: {choice: [32, [40, 32]]}}
augment: {rotate: {int: [0, 20]}, flip: {choice: [0, 0.5]}}
model: {backbone: any, weights: none}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 3.0], when: {loss/name: focal}}
  smoothing: {float: [0.0, 0.4], step: 0.1, when: {loss/name: cross_entropy}}
optimizer:
  name: {choice: [adamw, sgd], when: {loss/name: focal}}
  lr: {float: [1.0e-6, 1.0e-2], log: true}
  momentum: {float: [0.8, 0.95], when: {optimizer/name: sgd, task: joint}}
data: {cuts: [25, 50]}
train: {batch_size: {int: [16, 64], step: 16}}
"""


def test_a_space_has_a_place_for_whatever_it_draws_and_the_run_adds(tmp_path):
    space = written_space(tmp_path, WIDE)
    for seed in range(5):
        for values in random_draws(space, FIXED, seed=seed, count=40):
            # As a record holds it: defaults included, through JSON.
            kept = json.loads(json.dumps(TrialConfig.from_values(values).values()))
            assert fits(space, kept, FIXED)


@pytest.mark.parametrize(
    "why, changes",
    {
        "a choice that there is not": {"loss/name": "soft_f1"},
        "a list that is not among the choices": {"task": [["mask"], ["age"]]},
        "above the range": {"optimizer/lr": 0.02},
        "below the range of a condition's value": {"loss/gamma": 0.4},
        "beside the steps": {"train/batch_size": 40},
        "another fixed value": {"model/backbone": "other"},
        "another fixed list": {"data/cuts": [25, 51]},
        "another value of those the run adds": {"epochs": 5},
        "outside under nested conditions": {"optimizer/momentum": 0.5},
    }.items(),
)
def test_one_value_outside_is_enough_for_a_space_to_have_no_place(tmp_path, why, changes):
    space = written_space(tmp_path, WIDE)
    inside = {
        "task": "joint",
        "loss/name": "focal",
        "loss/gamma": 1.0,
        "optimizer/name": "sgd",
        "optimizer/momentum": 0.9,
        "optimizer/lr": 1e-3,
        "train/batch_size": 32,
        "view/size": [40, 32],
        "data/cuts": [25, 50],
        "model/backbone": "any",
        "model/weights": "none",
        "augment/rotate": 7,
    } | FIXED
    assert fits(space, TrialConfig.from_values(nested(inside)).values(), FIXED)
    # A record of before may hold settings that its entry does not have.
    assert not fits(space, TrialConfig.read(nested(inside | changes))[0].values(), FIXED), why


def test_what_the_space_does_not_name_or_draw_must_have_its_default(tmp_path):
    space = written_space(tmp_path, SEARCHED)
    values = {"loss/name": "cross_entropy", "optimizer/lr": 1e-3} | space.fixed | FIXED
    assert fits(space, TrialConfig.from_values(nested(values)).values(), FIXED)
    for path, other in {"loss/smoothing": 0.3, "train/accumulate": 2, "augment/flip": 0.5}.items():
        assert not fits(space, TrialConfig.from_values(nested(values | {path: other})).values(), FIXED), path


# Taking stock


def test_every_trial_is_sorted_by_how_it_ended_and_nothing_is_changed(put, space):
    put(0, through=True, end=("finished", "trained all 4 epochs"))
    put(1, end=("stopped", "ASHA stopped it"))
    put(2, end=("failed", "the loss is nan", "diverged"))
    put(3, end=("failed", "out of memory", "memory"))
    put(4, end=("failed", "its process died", "crash"))
    put(5, end=("interrupted", "Ctrl-C"))
    put(6, through=True)
    put(7, loss__name="soft_f1", end=("interrupted", "Ctrl-C"))
    (put(8) / "valid.npz").write_bytes(b"")
    put(10)
    trial_folder(put.run, 9).mkdir()
    before = snapshot(put.run)
    forgiving, strict = (take_stock(put.run, space, FIXED, retry=retry) for retry in (True, False))
    assert snapshot(put.run) == before
    assert numbers(forgiving.ended) == [0, 1, 2, 3, 6]
    assert numbers(strict.ended) == [0, 1, 2, 3, 4, 6]
    assert numbers(forgiving.going_on) == [4, 5, 10]
    assert numbers(strict.going_on) == [5, 10]
    for stock in (forgiving, strict):
        assert numbers(stock.misfits) == [7]
        assert [item.folder.name for item in stock.damaged] == ["8"]
    assert numbers(strict.kept) == [0, 1, 2, 3, 4, 6, 7], "by number"


def test_a_run_without_trials_has_an_empty_stock(put, space):
    assert take_stock(put.run, space, FIXED, retry=True) == Stock()


def test_trials_resume_and_damaged_ones_begin_again_with_their_values_to_the_letter(put, space):
    lr = 0.1 + 0.2 - 0.299
    going = put(3, optimizer__lr=lr, end=("interrupted", "Ctrl-C"))
    again = put(5, optimizer__lr=lr / 3, loss__name="focal", loss__gamma=1 / 3 + 0.5)
    (again / "reports.jsonl").write_text("{")
    outside = put(6, loss__name="soft_f1")
    (outside / "reports.jsonl").write_text("{")
    (put(7) / "config.json").write_text("{")
    other_epochs = put(8, epochs=EPOCHS + 1)
    (other_epochs / "reports.jsonl").write_text("{")
    stock = take_stock(put.run, space, FIXED, retry=True)
    assert stock.proposals == {
        number: TrialConfig.read(read_json(folder / "config.json", "config"))[0].values() for number, folder in ((3, going), (5, again))
    }


def other_tensors(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


FILES = ("config.json", "reports.jsonl", "result.json", "rungs.json", "valid.npz", MODEL, LAST)
CONTENTS = {
    "cut in half": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-2],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "other JSON": lambda content: b'{"other": [1, 2]}\n',
    "an empty object": lambda content: b"{}\n",
    "a number": lambda content: b"3\n",
    "nothing in JSON": lambda content: b"null\n",
    "a list of lists": lambda content: b"[[1]]\n",
    "no text": lambda content: b"\xff\xfe\x00",
    "tensors of something else": lambda content: other_tensors({"weights": torch.zeros(2)}),
    "missing": None,
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("file", FILES)
def test_every_damage_of_every_file_is_found_named_and_quarantined(put, space, file, kind):
    if file == "rungs.json" and kind == "missing":
        pytest.skip("a trial that has reached no rung has none")
    put(0, end=("interrupted", "Ctrl-C"))
    folder = put(1, decisions=[Decision(2, 0.1, 0, None, True)], end=("interrupted", "Ctrl-C"))
    target = folder / file
    if CONTENTS[kind]:
        target.write_bytes(CONTENTS[kind](target.read_bytes()))
    else:
        target.unlink()
    before = snapshot(put.run)
    stock = take_stock(put.run, space, FIXED, retry=True)
    assert snapshot(put.run) == before
    assert numbers(stock.going_on) == [0] and not stock.ended and not stock.misfits
    (damaged,) = stock.damaged
    assert damaged.folder == folder and str(damaged).startswith("trial 1 (") and damaged.why
    assert (damaged.values is None) == (file == "config.json")
    content = [path.name for path in sorted(folder.rglob("*"))]

    settled = settle(stock, put.run, asha_of())
    assert numbers(settled.going_on) == [0]
    assert not folder.exists()
    assert [path.name for path in sorted((put.run / "damaged" / "1").rglob("*"))] == content


@pytest.mark.parametrize("file, kind", [("result.json", "missing"), ("reports.jsonl", "missing"), ("valid.npz", "cut in half")])
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_damaged_record_of_a_trial_that_had_ended_is_found_too(put, space, state, file, kind):
    folder = put(0, through=state == "finished", end=(state, "for a reason"))
    if CONTENTS[kind]:
        (folder / file).write_bytes(CONTENTS[kind]((folder / file).read_bytes()))
    else:
        (folder / file).unlink()
    assert [item.folder for item in take_stock(put.run, space, FIXED, retry=True).damaged] == [folder]


def test_files_that_do_not_belong_together_are_damage(put, space):
    gap = put(0)
    lines = (gap / "reports.jsonl").read_text().splitlines()
    (gap / "reports.jsonl").write_text(lines[1] + "\n")
    stale = put(1)
    (stale / "reports.jsonl").write_text(lines[0] + "\n")
    ahead = put(2)
    edit(ahead / "result.json", best_epoch=3)
    half = put(3, end=("interrupted", "Ctrl-C"))
    edit(half / "result.json", state="finished")
    assert [item.folder for item in take_stock(put.run, space, FIXED, retry=True).damaged] == [gap, stale, ahead, half]


@pytest.mark.parametrize("ended", ["stopped", "finished", "failed"])
def test_an_ended_trial_whose_weights_were_not_kept_is_complete(put, space, ended):
    folder = put(0, through=ended == "finished", end=(ended, "for a reason", "diverged" if ended == "failed" else ""))
    (folder / MODEL).unlink()
    stock = take_stock(put.run, space, FIXED, retry=True)
    assert numbers(stock.ended) == [0] and not stock.damaged


def test_a_process_that_died_between_two_files_of_an_epoch_leaves_a_record_that_resumes(put, trained, space):
    """The order of writing is weights, predictions, reports, result, and last what is needed to continue."""
    weights = put(0)
    shutil.copy(trial_folder(trained, 1) / MODEL, weights / MODEL)
    predictions = put(1)
    write_predictions(predictions, replace(read_predictions(predictions), epoch=3))
    reports = put(2)
    third = (trial_folder(trained, 1) / "reports.jsonl").read_text().splitlines()[:3]
    (reports / "reports.jsonl").write_text("\n".join(third) + "\n")
    result = put(3)
    (result / "reports.jsonl").write_text("\n".join(third) + "\n")
    edit(result / "result.json", best_epoch=json.loads(third[2])["best_epoch"])
    first = put(4)
    one = json.loads(third[0])
    write_reports(first, [one])
    edit(first / "result.json", best_epoch=1)
    shutil.rmtree((first / LAST).parent)
    # The state of a large model is not written after every epoch.
    older = put(5)
    later = [json.loads(third[2]) | {"epoch": 3 + more, "best_epoch": 1} for more in range(3)]
    write_reports(older, [*map(json.loads, third[:2]), *later])
    edit(older / "result.json", best_epoch=1)
    stock = take_stock(put.run, space, FIXED, retry=True)
    assert numbers(stock.going_on) == [0, 1, 2, 3, 4, 5], [str(item) for item in stock.damaged]


def test_a_damaged_trial_that_was_quarantined_before_keeps_its_place(put, space):
    for times in range(3):
        folder = put(7)
        (folder / "valid.npz").write_bytes(b"")
        (folder / "mark").write_text(str(times))
        settle(take_stock(put.run, space, FIXED, retry=True), put.run, asha_of())
    kept = {place.name: (place / "mark").read_text() for place in (put.run / "damaged").iterdir()}
    assert kept == {"7": "0", "7-2": "1", "7-3": "2"}


# Settling


def settled(put, space, asha, *, retry=True):
    return settle(take_stock(put.run, space, FIXED, retry=retry), put.run, asha)


@pytest.mark.parametrize("end", [None, ("failed", "its process died", "crash")])
def test_a_trial_that_reported_its_last_epoch_but_was_not_closed_is_finished(put, space, end):
    folder = put(0, through=True, end=end)
    stock = settled(put, space, asha_of())
    assert numbers(stock.ended) == [0] and not stock.going_on
    for result in (stock.ended[0].result, read_record(folder).result):
        assert (result.state, result.reason, result.cause) == ("finished", "trained all 4 epochs", "")
    assert read_last(folder) is None


def test_a_report_at_a_rung_that_was_not_evaluated_is_evaluated_once_and_a_hopeless_trial_is_closed(put, space):
    put(0, scores=[0.1, 0.8], decisions=[Decision(2, 0.8, 0, None, True)], end=("stopped", "for a reason"))
    hopeless = put(1, scores=[0.9, 0.2], end=("interrupted", "Ctrl-C"))
    hopeful = put(2, scores=[0.1, 0.9], end=("interrupted", "Ctrl-C"))
    decided = []
    stock = settled(put, space, asha_of(decided))
    assert numbers(stock.ended) == [0, 1] and numbers(stock.going_on) == [2]
    assert decided == [(1, Decision(2, 0.2, 1, 0.8, False)), (2, Decision(2, 0.9, 2, 0.5, True))]
    result = read_record(hopeless).result
    assert result.state == "stopped" and not missing(result.reason, "ASHA", "epoch 2", "macro F1 0.200", "0.800 of 1 trials")
    assert read_last(hopeless) is None and read_last(hopeful) is not None
    for number, decision in decided:
        write_decisions(trial_folder(put.run, number), [decision])
    again = []
    assert numbers(settled(put, space, asha_of(again)).going_on) == [2]
    assert again == [], "the next command evaluates none of them again"


def test_a_report_that_was_evaluated_is_not_evaluated_again(put, space):
    put(0, scores=[0.1, 0.8], end=("stopped", "for a reason"))
    put(1, scores=[0.1, 0.8], decisions=[Decision(2, 0.8, 1, 0.8, True)], end=("interrupted", "Ctrl-C"))
    put(2, scores=[0.1, 0.9], end=("stopped", "for a reason"))
    decided, asha = [], asha_of()
    asha = asha_of(decided)
    assert numbers(settled(put, space, asha).going_on) == [1]
    assert decided == [] and set(asha.history({}).at(2)) == {0, 1, 2}


def test_a_trial_that_asha_had_found_hopeless_when_the_driver_died_is_closed(put, space):
    """The decision is written before it takes effect."""
    noted = Decision(2, 0.2, 1, 0.8, False)
    folder = put(1, scores=[0.9, 0.2], decisions=[noted])
    spared = put(2, scores=[0.9, 0.2], decisions=[noted])
    decided = []
    stock = settled(put, space, asha_of(decided, spared=lambda number: number == 2))
    assert numbers(stock.ended) == [1] and numbers(stock.going_on) == [2] and decided == []
    assert read_record(folder).result.state == "stopped"
    assert not missing(read_record(folder).result.reason, "ASHA", "epoch 2", "macro F1 0.200", "0.800")
    assert read_decisions(folder) == read_decisions(spared) == (noted,)


def test_a_spared_trial_is_evaluated_but_resumes(put, space):
    put(0, scores=[0.1, 0.8], end=("stopped", "for a reason"))
    put(1, scores=[0.9, 0.2])
    decided = []
    assert numbers(settled(put, space, asha_of(decided, spared=lambda number: True)).going_on) == [1]
    assert decided == [(1, Decision(2, 0.2, 1, 0.8, False))]


def test_a_trial_whose_process_died_too_often_is_evaluated_at_a_rung_that_was_never_reported(put, space):
    put(0, scores=[0.1, 0.8], end=("stopped", "for a reason"))
    put(1, scores=[0.9, 0.2], end=("failed", "its process died", "crash"))
    decided = []
    assert numbers(settled(put, space, asha_of(decided)).ended) == [0, 1]
    assert [number for number, _ in decided] == [1]


def test_scores_of_trials_that_will_not_run_again_count_and_of_damaged_ones_do_not(put, space):
    put(0, scores=[0.1, 0.4], end=("failed", "the loss is nan", "diverged"))
    put(1, scores=[0.1, 0.5], loss__name="soft_f1", decisions=[Decision(2, 0.5, 1, 0.4, True)], end=("interrupted", "Ctrl-C"))
    (put(2, scores=[0.1, 0.6]) / "valid.npz").write_bytes(b"")
    asha = asha_of()
    settled(put, space, asha)
    assert asha.history({}).at(2) == {0: 0.4, 1: 0.5}


def test_a_trial_between_two_rungs_is_not_evaluated(put, space):
    put(0, scores=[0.5, 0.0])
    decided = []
    asha = asha_of(decided, grace=1, reduction=3)
    assert numbers(settle(take_stock(put.run, space, FIXED, retry=True), put.run, asha).going_on) == [0]
    assert decided == [] and asha.history({}).at(1) == {0: 0.5} and not asha.history({}).at(3)


def test_a_settled_run_is_settled(put, space):
    put(0, through=True)
    put(1)
    (put(2) / "valid.npz").write_bytes(b"")
    first = settled(put, space, asha_of())
    before = snapshot(put.run)
    second = settled(put, space, asha_of())
    assert snapshot(put.run) == before
    assert (numbers(second.ended), numbers(second.going_on)) == (numbers(first.ended), numbers(first.going_on)) == ([0], [1])
    assert second.damaged == ()

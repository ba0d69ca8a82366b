"""What a teacher answers, as a file and as what heads are taught."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.messages import missing
from tests.trainables.data.test_training import SCHEME, draw_data
from trainables.data.settings import LabelsConfig
from trainables.data.targets import Number, Scheme, Tags, read_task
from trainables.data.teacher import Teacher, Unseen
from trainables.data.training import Taught, training_images
from trainables.record import TEACHER, RunCard, RunError
from trainables.restore_data import read_teacher, teacher_hash

CARD = RunCard("student", "student", "data", (), 0, "hash", (), 1, 1, "test", student_of="faces/ensemble")


def teacher_of(images, rng, *, but=()) -> Teacher:
    """Random answers to all images but some."""
    ids = tuple(name for name in images.ids if name not in but)
    answers = rng.dirichlet(np.ones(SCHEME.classes), size=len(ids)).astype(np.float32)
    return Teacher(SCHEME, ids, answers, np.ones(len(ids), dtype=bool))


def test_the_file_gives_back_what_was_written():
    rng = np.random.default_rng(0)
    unseen = Unseen(Path("/photos"), ("a b.jpg", "ü.png"), ("0" * 16, "1" * 16), np.full((2, SCHEME.classes), 1 / 18, np.float32))
    teacher = replace(teacher_of(draw_data(0, groups=30).images, rng), unseen=unseen)
    found = Teacher.read(teacher.pack())
    assert (found.scheme, found.ids) == (teacher.scheme, teacher.ids)
    assert np.array_equal(found.answers, teacher.answers) and np.array_equal(found.out_of_fold, teacher.out_of_fold)
    assert (found.unseen.root, found.unseen.ids, found.unseen.digests) == (unseen.root, unseen.ids, unseen.digests)


@pytest.mark.parametrize("task", ["joint", "heads", [["mask", "gender"], ["age"]]], ids=str)
def test_every_head_is_taught_the_teachers_answer_to_its_targets(task):
    data, rng = draw_data(0, groups=40), np.random.default_rng(0)
    without = data.images.ids[data.split.train[0]]
    teacher, task = teacher_of(data.images, rng, but={without}), read_task(task, SCHEME)
    labels, taught = (training_images(LabelsConfig(), one, task) for one in (data, replace(data, taught=teacher.of(data.images))))
    answer = dict(zip(teacher.ids, teacher.answers, strict=True))
    for head, plain, rows in zip(task.head_schemes, labels.targets, taught.targets, strict=True):
        assert rows.shape == (len(labels), head.classes) and np.allclose(rows.sum(axis=1), 1, atol=1e-5)
        for name, label, row in zip(taught.ids, plain, rows, strict=True):
            if name == without:
                assert row[label] == 1, "one that the teacher did not answer keeps its label"
            else:
                assert np.allclose(row, SCHEME.marginal(head.names, answer[name][None])[0], atol=1e-6)
    assert np.array_equal(taught.classes, labels.classes), "the sampler goes by labels"


def test_a_share_of_the_label_stays():
    data, task = draw_data(0, groups=40), read_task("joint", SCHEME)
    data = replace(data, taught=teacher_of(data.images, np.random.default_rng(0)).of(data.images))
    none, some, all_of_it = (training_images(LabelsConfig(teacher=share), data, task).targets[0] for share in (0.0, 0.7, 1.0))
    assert none.ndim == 1, "class ids, as without a teacher"
    assert np.allclose(some, 0.7 * all_of_it + 0.3 * np.eye(SCHEME.classes)[none], atol=1e-6)


def test_tags_and_numbers_are_taught_likewise_and_other_kinds_by_their_labels():
    tags, number = Scheme((Tags("seen", ("cat", "dog")),)), Scheme((Number("weight"),))
    seen, weights = np.array([[1.0, 0.0]], np.float32), np.array([[4.0]], np.float32)
    chosen, by_tags, by_number = np.array([0]), np.array([[0.8, 0.4]], np.float32), np.array([[2.0]], np.float32)
    assert Taught(tags, by_tags).target(tags, seen, chosen, 0.5)[0].tolist() == pytest.approx([0.9, 0.2])
    assert Taught(number, by_number).target(number, weights, chosen, 1.0).tolist() == [[2.0]]
    assert Taught(number, by_number).target(tags, seen, chosen, 1.0) is seen


def test_a_students_run_without_its_teachers_file_or_with_another_is_refused(tmp_path):
    content = teacher_of(draw_data(0, groups=30).images, np.random.default_rng(0)).pack()
    card, file = replace(CARD, teacher=teacher_hash(content)), tmp_path / TEACHER
    assert read_teacher(tmp_path, CARD) is None, "taught by labels alone"
    for changed in (None, content[:-40]):
        if changed:
            file.write_bytes(changed)
        with pytest.raises(RunError) as caught:
            read_teacher(tmp_path, card)
        assert not missing(str(caught.value), file, "faces/ensemble")
    file.write_bytes(content)
    assert len(read_teacher(tmp_path, card).ids) == 90
    file.write_bytes(b"no arrays")
    with pytest.raises(RunError) as caught:
        read_teacher(tmp_path, replace(card, teacher=teacher_hash(b"no arrays")))
    assert not missing(str(caught.value), file)

"""What a vote teaches: out of fold where it has a model for each fold, and never of the hold-out."""

import numpy as np
import pytest
import torch

from analysis.evaluation.answering import open_ensemble
from analysis.evaluation.teaching import teach
from analysis.members.predictions import wanted_views
from analysis.members.trials import load_runs
from tests.analysis.ensembles import mean_of, write
from trainables.data.splits import HOLDOUT
from trainables.data.teacher import Unseen
from trainables.data.views import build_views


@pytest.fixture(scope="module")
def raced(make_run, tmp_path_factory):
    """A configuration on each of the two folds."""
    return make_run(tmp_path_factory.mktemp("raced"), "raced", [{"task": "joint"}], refit_of="faces")


def taught(made, trials, cache):
    answering = open_ensemble(write(made.folder, mean_of(trials)))
    files = build_views(made.images, wanted_views(answering.trials), cache)
    return teach(answering, made.images, made.split, files, Unseen(), torch.device("cpu"))


def test_each_image_is_answered_by_the_model_that_validated_on_it(raced, cache):
    runs = load_runs([raced.folder])
    teacher = taught(raced, runs.trials, cache)
    assert teacher.out_of_fold.all()
    assert set(teacher.ids) == {name for name, part in zip(raced.images.ids, raced.split.part, strict=True) if part != HOLDOUT}
    row = {name: index for index, name in enumerate(teacher.ids)}
    assert np.allclose(teacher.answers[[row[name] for name in runs.valid.ids]], runs.trials[0].valid, atol=1e-6)


def test_without_fold_models_only_the_validation_images_are_out_of_fold(faces, make_run, tmp_path, cache):
    made = make_run(tmp_path, "plain", [{"task": "joint"}, {"task": "heads"}])
    teacher = taught(made, load_runs([made.folder]).trials, cache)
    part = dict(zip(made.images.ids, made.split.part.tolist(), strict=True))
    assert [part[name] == 0 for name in teacher.ids] == teacher.out_of_fold.tolist()

from functools import cache

import pytest

from search_spaces.read import BASES, FOLDER, read_space, shipped_spaces
from search_spaces.schema import Choice, Space, SpaceError, flat, same
from trainables.config import DataConfig, TrialConfig
from trainables.data.labels import contest_scheme
from trainables.data.photos import read_photos
from trainables.data.splits import split_people
from trainables.data.views import build_views, channel_statistics, open_view
from trainables.parts import Data
from tuner.preflight import check_space, cover, covered_attributes, draw, rehearse, views_of
from tuner.search import random_draws

SCHEME = contest_scheme((30, 60))
FIXED = {"epochs": 2, "seed": 0}

every_space = pytest.mark.parametrize("name", shipped_spaces())
on_both = pytest.mark.parametrize("on_cpu", [False, True], ids=["gpu", "cpu"])


@cache
def shipped(name: str, on_cpu: bool) -> Space:
    return read_space(name, on_cpu=on_cpu)


@cache
def draws(name: str, on_cpu: bool) -> list[dict]:
    return list(random_draws(shipped(name, on_cpu), FIXED, seed=0, count=2000))


@every_space
@on_both
def test_nothing_is_wrong_with_a_shipped_space(name, on_cpu):
    assert check_space(shipped(name, on_cpu), SCHEME) == []
    assert views_of(shipped(name, on_cpu))


@every_space
@on_both
def test_what_is_drawn_from_a_shipped_space_can_be_trained(name, on_cpu):
    drawn = draw(shipped(name, on_cpu), FIXED, seed=1, count=100)
    assert len(drawn) == 100
    assert all(TrialConfig.from_values(values).epochs == 2 for values in drawn)
    assert covered_attributes(drawn, SCHEME)


@every_space
@on_both
def test_a_conditional_value_stands_only_where_its_condition_holds(name, on_cpu):
    conditional = [parameter for parameter in shipped(name, on_cpu).parameters if parameter.when]
    for values in map(flat, draws(name, on_cpu)):
        for parameter in conditional:
            holds = all(path in values and any(same(values[path], one) for one in allowed) for path, allowed in parameter.when)
            assert (parameter.path in values) == holds


@every_space
@on_both
def test_every_choice_of_a_shipped_space_is_drawn(name, on_cpu):
    drawn = [flat(values) for values in draws(name, on_cpu)]
    for parameter in shipped(name, on_cpu).parameters:
        seen = [values[parameter.path] for values in drawn if parameter.path in values]
        expected = parameter.domain.values if isinstance(parameter.domain, Choice) else seen[:1]
        assert expected and all(value in seen for value in expected), parameter.path
        assert all(parameter.domain.holds(value) for value in seen)


@every_space
def test_the_start_entries_are_drawn_first(name):
    space = shipped(name, False)
    for entry, values in zip(space.start, draws(name, False), strict=False):
        assert entry.items() <= flat(values).items()


@every_space
def test_every_kind_of_trial_of_a_shipped_space_trains_a_step_without_a_gpu(name, demo, photos, cache):
    space = read_space(name, on_cpu=True, changes=["data/folds=2", "data/holdout=0.2"])
    files = build_views(read_photos(demo, (30, 60)), views_of(space), cache).files
    split = split_people(photos, DataConfig(folds=2, holdout=0.2), seed=0)
    statistics = {view: channel_statistics(open_view(file), photos.rows[split.train]) for view, file in files.items()}
    chosen = cover(space, draw(space, FIXED, seed=0))
    done = []
    rehearse(space, chosen, Data(photos, split, files, statistics), done.append)
    assert done == [1] * len(chosen)


@pytest.mark.parametrize("name", sorted(BASES))
def test_a_base_is_not_offered_as_a_space_and_alone_it_is_refused(name):
    assert name not in shipped_spaces() and (FOLDER / name).is_file()
    with pytest.raises(SpaceError, match="model/backbone: must be given"):
        read_space(name, check=lambda space: check_space(space, SCHEME))

"""Attempts in parallel and in order: the same data for any number of workers, and after any interruption."""

import dataclasses
import functools

import numpy as np
import pytest

from calql.paper.demonstrators import run
from calql.paper.demonstrators.run import collect, make_recipe
from calql.paper.tasks import TASKS
from calql.tasks import Task
from calql.types import Episode, InputError


@dataclasses.dataclass(frozen=True)
class Recipe:
    transitions: int = 40
    noise: float = 0.1
    horizon: int = 7


ROW = Task(id="tiny", env="none:none", horizon=9, data=None, builder="none:none", recipe={"noise": 0.5})
RESUME = (ROW, Recipe(), 3)


def attempt(folder, index):
    """Episodes of 1 to 5 steps, nothing at each seventh attempt; counts how often it is called."""
    if folder is not None:
        (folder / f"{index}-{len(list(folder.glob(f'{index}-*')))}").touch()
    if index % 7 == 6:
        return None
    rng, steps = np.random.default_rng(index), index % 5 + 1
    return Episode(
        {"image": rng.integers(0, 255, (steps + 1, 2, 2), np.uint8), "state": rng.normal(size=(steps + 1, 3))},
        rng.normal(size=(steps, 2)).astype(np.float32),
        rng.normal(size=steps).astype(np.float32),
        np.arange(steps) == steps - 1,
        index % 2 == 0,
        None if index % 3 == 0 else np.zeros(steps, bool),
    )


def fingerprint(episodes):
    flat = [(k, v if not isinstance(v, dict) else sorted(v.items())) for e in episodes for k, v in e._asdict().items()]
    return repr([(k, np.asarray(v, object).tolist() if v is None else str(v)) for k, v in flat])


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    (tmp_path / "calls").mkdir()
    return tmp_path


def test_whole_episodes_in_order_until_there_are_enough():
    made = collect(functools.partial(attempt, None), 40)
    lengths = [e.length for e in made]
    assert lengths == [i % 5 + 1 for i in range(100) if i % 7 != 6][: len(lengths)]
    assert sum(lengths) >= 40 > sum(lengths[:-1])
    assert len(collect(functools.partial(attempt, None), 5, unit="episodes")) == 5


def test_the_number_of_workers_changes_nothing():
    one, two = (fingerprint(collect(functools.partial(attempt, None), 60, workers=n)) for n in (1, 2))
    assert one == two


def test_what_is_kept_is_decided_in_order():
    seen = []

    def keep(episode, kept):
        seen.append(len(kept))
        return episode.length > 2

    made = collect(functools.partial(attempt, None), 6, unit="episodes", keep=keep)
    assert [e.length for e in made] == [3, 4, 5, 3, 4, 5]
    assert seen == sorted(seen)


def test_progress_is_told_and_ends_at_the_total():
    calls = []
    collect(functools.partial(attempt, None), 20, progress=lambda *call: calls.append(call))
    assert calls[-1] == (20, 20)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_goes_on_where_it_was(root, workers):
    calls, episodes = root / "calls", []

    def interrupt(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    work = functools.partial(attempt, calls)
    with pytest.raises(KeyboardInterrupt):
        collect(work, 60, workers=workers, resume=RESUME, progress=interrupt)
    before = {path.name for path in calls.iterdir()}
    episodes = collect(work, 60, workers=workers, resume=RESUME)
    assert fingerprint(episodes) == fingerprint(collect(functools.partial(attempt, None), 60))
    assert before
    assert not [path for path in calls.iterdir() if path.name.endswith("-1")]  # nothing was done twice


def test_a_shard_that_was_cut_short_is_made_again(root):
    work = functools.partial(attempt, root / "calls")
    collect(work, 30, resume=RESUME)
    shard = sorted((root / "data").rglob("*.npz"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    assert fingerprint(collect(work, 30, resume=RESUME)) == fingerprint(collect(functools.partial(attempt, None), 30))


def test_another_seed_or_recipe_has_shards_of_its_own(root):
    folders = {run._folder(ROW, recipe, seed) for recipe in (Recipe(), Recipe(noise=0.2)) for seed in (0, 1)}
    assert len(folders) == 4


def test_an_impossible_recipe_ends():
    with pytest.raises(InputError, match="only 0 of 101 attempts could be kept"):
        collect(functools.partial(attempt, None), 1, keep=lambda *_: False)


@pytest.mark.parametrize("numbers", [{"total": 0}, {"total": 1, "workers": 0}])
def test_numbers_below_one_are_refused(numbers):
    with pytest.raises(InputError, match="at least 1"):
        collect(functools.partial(attempt, None), **numbers)


def test_the_recipe_is_the_rows_and_the_callers_options_win():
    assert make_recipe(Recipe, ROW, None, {}) == Recipe(40, 0.5, 9)
    assert make_recipe(Recipe, ROW, 7, {"noise": 0.3, "horizon": 2}) == Recipe(7, 0.3, 2)
    with pytest.raises(InputError, match=r"no option wobble; the options are horizon, noise, transitions"):
        make_recipe(Recipe, ROW, None, {"wobble": 1})


@pytest.mark.parametrize("task", [row for row in TASKS.values() if row.builder], ids=lambda row: row.id)
def test_every_rows_recipe_is_one_its_builder_knows(task):
    from calql.tasks import load_attribute

    module = task.builder.partition(":")[0]
    recipe = make_recipe(load_attribute(f"{module}:Recipe"), task, 123, {})
    assert recipe.transitions == 123

"""Before the first update: random and warm-up episodes, their place on the clock, and what is learned from after it."""

from itertools import islice

import jax
import numpy as np
import pytest
import tiny

from calql.algorithms.acting import acting
from calql.training import loop
from calql.training.continuity import refuse_other_state
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import InputError, RunError

WARMUP = dict(warmup_steps=17, online_steps=40)


def copied(tree):
    return jax.tree.map(np.array, tree)


@pytest.mark.parametrize("options", [dict(start_steps=9), dict(warmup_steps=9), dict(start_steps=5, warmup_steps=9)])
def test_episodes_before_the_first_update_bring_none(tmp_path, options):
    made = tiny.trainer(tmp_path / "run", "hybrid", **options)
    run = [event for event in loop.run(made) if event.kind in ("episode", "update")]
    first = [event.kind for event in run].index("update")
    *before, last = [event.info["length"] for event in run[:first]]
    assert sum(before[:-1]) < 9 <= sum(before)
    assert last
    assert made.counters.grad_step == (30 - sum(before)) * 2


def actions_of(made, index):
    """(online episodes so far, the actions [T, A] of that one)."""
    lengths = [int(row["length"]) for row in made.run_dir.read_rows("episodes.csv")]
    start = int(made.replay.offline) + sum(lengths[:index])
    return np.asarray(made.replay.storage.actions)[start : start + lengths[index]]


def test_the_warm_up_is_of_the_pre_trained_policy_with_its_exploration(tmp_path):
    made = tiny.trainer(tmp_path / "run", "wsrl", **WARMUP, replay_capacity=100)
    run, pretrained = loop.run(made), None
    for event in run:
        if event.phase == "online" and pretrained is None:
            pretrained = copied(made.state)
        if event.kind == "episode":
            if made.counters.due:
                break
            jax.tree.map(np.testing.assert_array_equal, copied(made.state), pretrained)
            index = made.counters.episode - 1
            act = acting(made.phase.algorithm, made.spec, pretrained, 1, made.streams.key("collect", index))
            start = int(made.replay.offline) + made.counters.before[0]
            states = np.asarray(made.replay.storage.observations)[start:]
            for step, action in enumerate(actions_of(made, index)):
                again = act(states[None, step], np.array([step], np.int32), np.zeros(1, np.float32))[0]
                np.testing.assert_allclose(action, np.clip(again, -1, 1), rtol=1e-5, atol=1e-6)
    assert made.counters.episode > 2
    assert made.counters.before[0] >= 17


def test_the_clock_counts_the_warm_up_and_evaluates_its_policy_once(tmp_path):
    made = tiny.trainer(tmp_path / "run", "wsrl", **WARMUP, eval_every_online=4)
    for _ in loop.run(made):
        pass
    rows = [row for row in made.run_dir.read_rows("eval.csv") if row["phase"] == "online"]
    steps, border = [int(row["env_step"]) for row in rows], rows[0]["grad_step"]
    assert (steps[0], steps[-1]) == (0, 40)
    assert [step // 4 for step in steps] == sorted({step // 4 for step in steps})
    same = [{k: v for k, v in row.items() if k != "env_step"} for row in rows if row["grad_step"] == border]
    assert len(same) > 2
    assert all(row == same[0] for row in same)
    ends = np.cumsum([int(row["length"]) for row in made.run_dir.read_rows("episodes.csv")])
    warm = int(ends[ends >= 17][0])
    assert made.counters.grad_step == (40 - warm) * 2


def test_fine_tuning_without_data_never_reads_them(tmp_path):
    """From the border on the data's rewards are no numbers; a run that learns from one of them stops."""

    def learn(method):
        made = tiny.trainer(tmp_path / method, method, online_steps=40)
        for event in loop.run(made):
            if event.phase == "online" and event.kind == "episode" and made.counters.grad_step == 0:
                count, storage = int(made.replay.offline), made.replay.storage
                assert count
                assert int(made.replay.online) == min(made.counters.env_step, 20)  # new transitions alone
                spoiled = storage._replace(rewards=storage.rewards.at[:count].set(np.nan))
                made.replay = made.replay._replace(storage=spoiled)
        return made.counters.grad_step

    assert learn("wsrl") > 0
    with pytest.raises(RunError, match="not finite"):
        learn("cql-sac")


# -- stopping and going on ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(outcome, numbers of the events of the warm-up) of a run that was not disturbed."""
    made = tiny.trainer(tmp_path_factory.mktemp("whole") / "run", "wsrl", **WARMUP)
    warm = [
        number
        for number, event in enumerate(loop.run(made), 1)
        if event.phase == "online" and made.counters.grad_step == 0 and made.counters.env_step
    ]
    return tiny.outcome(made), warm


def test_a_run_that_is_left_and_saved_anywhere_in_the_warm_up_goes_on_exactly(tmp_path, whole):
    expected, warm = whole
    assert len(warm) >= 4
    for stop in warm:
        left = tiny.trainer(tmp_path / str(stop), "wsrl", **WARMUP)
        for _ in islice(loop.run(left), stop):
            pass
        left.save()
        left.close()
        made = tiny.trainer(tmp_path / str(stop), "wsrl", **WARMUP)
        made.restore()
        for _ in loop.run(made):
            pass
        actual = tiny.outcome(made)
        assert [name for name in expected if actual[name] != expected[name]] == []


def test_networks_of_another_run_warm_up_too(tmp_path):
    train(tiny.made("wsrl"), tmp_path / "donor", tiny.DATA)
    options = dict(warmup_steps=12, actor_layer_norm=True, critic_layer_norm=True, num_critics=10, target_subset=2)
    made = tiny.made("sac", **options)
    kinds = [
        (event.kind, event.phase)
        for event in events(made, tmp_path / "run", tiny.DATA, init_from=str(tmp_path / "donor"))
    ]
    episodes = [kind for kind, _ in kinds[: kinds.index(("update", "online"))] if kind == "episode"]
    assert len(episodes) >= 2


# -- scores from online episodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "option"), [("wsrl", "warmup_steps"), ("hybrid", "start_steps")])
def test_every_online_episode_counts_in_the_evaluation_that_follows_it(tmp_path, method, option):
    settings = dict(eval_from="training", eval_every_online=4, online_steps=40)
    train(tiny.made(method, **settings, **{option: 17}), tmp_path / "run", tiny.DATA)
    run_dir = RunDir(tmp_path / "run")
    episodes, counted = run_dir.read_rows("episodes.csv"), 0
    for row in run_dir.read_rows("eval.csv"):
        number = int(row["episodes"])
        if row["phase"] == "online":
            ended = [episode for episode in episodes if int(episode["env_step"]) <= int(row["env_step"])]
            assert counted + number >= len(ended)
            new = episodes[counted : counted + number]
            mean = np.mean([float(episode["score"]) for episode in new]) if new else None
            assert row["score_mean"] == ("" if mean is None else str(mean))
        counted += number
    assert counted == len(episodes)


# -- networks of both phases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "world", "option", "value"),
    [
        ("cal-ql", "states", "critic_hidden", (7,)),
        ("cal-ql", "states", "num_critics", 3),
        ("cal-ql", "states", "critic_layer_norm", True),
        ("wsrl", "states", "actor_layer_norm", False),
        ("wsrl", "states", "num_critics", 2),
        ("cal-ql", "images", "encoder", "impala"),
    ],
)
def test_phases_of_other_networks_are_refused_before_anything_is_trained(tmp_path, method, world, option, value):
    with pytest.raises(InputError, match=rf"set alike in both: {option} \("):
        train(tiny.made(method, world, **{f"finetune.{option}": value}), tmp_path / "run", tiny.WORLDS[world][1])
    assert not (tmp_path / "run").exists()


def test_settings_that_change_no_network_may_differ():
    made = tiny.made("wsrl", **{"finetune.actor_lr": 0.5, "finetune.tau": 0.5, "finetune.discount": 0.5})
    refuse_other_state(made.pretrain.algorithm, made.finetune.algorithm, tiny.DATA.spec())

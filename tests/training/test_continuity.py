"""The border of the phases where pre-training learns more than fine-tuning continues with (SMAC's diffusion model)."""

import dataclasses
from itertools import islice

import jax
import numpy as np
import pytest
import tiny

import calql
from calql.algorithms import CQL, SAC, SMAC, TD3BC, CalQL
from calql.methods import Method
from calql.training import checkpoint, loop, store
from calql.training.continuity import continued
from calql.training.options import changed, experiment
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import InputError

ONLY_BEFORE = {"value", "value_optimizer"}


def copied(tree):
    return jax.tree.map(np.array, tree)


@pytest.mark.parametrize("world", tiny.WORLDS)
def test_everything_continues_but_what_only_pre_training_has(tmp_path, world):
    made, before, after = tiny.trainer(tmp_path / "run", "smac", world), None, None
    for event in loop.run(made):
        if event.phase == "offline":
            before = copied(made.state)
        elif after is None:
            after = copied(made.state)
    there = {name for name, part in before._asdict().items() if part is not None}
    assert there - {name for name, part in after._asdict().items() if part is not None} == ONLY_BEFORE
    jax.tree.map(np.testing.assert_array_equal, before._replace(value=None, value_optimizer=None), after)
    assert made.state.value is None
    assert made.run_dir.done


def test_a_run_goes_on_exactly_wherever_it_was_left(tmp_path):
    whole = tiny.trainer(tmp_path / "whole", "smac")
    count = sum(1 for _ in loop.run(whole))
    expected = tiny.outcome(whole)
    for stop in range(1, count, 3):
        left = tiny.trainer(tmp_path / str(stop), "smac")
        for _ in islice(loop.run(left), stop):
            pass
        left.save()
        left.close()
        made = tiny.trainer(tmp_path / str(stop), "smac")
        made.restore()
        for _ in loop.run(made):
            pass
        actual = tiny.outcome(made)
        assert [name for name in expected if actual[name] != expected[name]] == []


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    path = tmp_path_factory.mktemp("donor") / "run"
    train(tiny.made("smac"), path, tiny.DATA)
    return path


def state_at(folder, step):
    return checkpoint.load(store.find_checkpoint(RunDir(folder), tiny.made("smac"), step), "state")


def test_checkpoints_of_both_phases_act(donor):
    for step, rule in (("pretrained", SMAC), ("newest", SAC)):
        assert any(".value" in name for name in state_at(donor, step)) == (rule is SMAC)
        policy = calql.load_policy(donor, step=step)
        assert type(policy.algorithm) is rule
        assert policy.act(np.zeros(2, np.float32)).shape == (1,)
        assert calql.evaluate(donor, episodes=2, step=step)["episodes"] == 2


def test_a_pre_training_is_shared(tmp_path, donor):
    made = tiny.made("smac", **{"finetune.actor_lr": 3e-3})
    train(made, tmp_path / "taken", tiny.DATA, pretrained=donor)
    train(made, tmp_path / "own", tiny.DATA)
    one, two = (state_at(tmp_path / name, "newest") for name in ("taken", "own"))
    assert one.keys() == two.keys()
    for leaf in one:
        np.testing.assert_array_equal(one[leaf], two[leaf])


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        ("@pretrained", {}, "took actor, critic, target_critic, value"),
        ("@newest", {}, "newly initialised: value, value_optimizer"),
        ("@pretrained", {"offline_steps": 0}, "took actor, critic, target_critic, value"),
        ("@newest", {"offline_steps": 0}, "newly initialised: value, value_optimizer"),
    ],
)
def test_networks_of_either_phase_begin_a_run_which_may_be_left_and_resumed(tmp_path, donor, step, options, said):
    made, texts = tiny.made("smac", seed=9, **options), []
    for count in (4, 30, None):
        run = events(made, tmp_path / "run", tiny.DATA, init_from=f"{donor}{step}", resume=True)
        texts += [event.info["text"] for event in islice(run, count) if event.kind == "notice"]
        run.close()
    assert [said in text for text in texts] == [True]
    first = checkpoint.load(checkpoint.at(tmp_path / "run" / "checkpoints", 0), "state")
    for leaf, array in state_at(donor, step.removeprefix("@")).items():
        np.testing.assert_array_equal(first[leaf], array)
    assert RunDir(tmp_path / "run").done


def test_sac_begins_from_it_too(tmp_path, donor):
    run = events(tiny.made("sac", optimizer="muon"), tmp_path / "run", tiny.DATA, init_from=f"{donor}@pretrained")
    text = next(run).info["text"]
    run.close()
    assert "critic_optimizer" in text
    assert "newly initialised" not in text


# -- what cannot continue ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(SAC, SMAC), (SAC, TD3BC), (TD3BC, SAC)])
def test_parts_that_fine_tuning_needs_must_be_there(before, after):
    with pytest.raises(InputError, match=f"{before.__name__} and {after.__name__} have different states"):
        experiment(tiny.TASK, Method("odd", "Odd", before, after), "smoke")


def test_a_learned_reference_may_end_with_pre_training_but_not_begin_with_fine_tuning(tmp_path):
    fits = changed(tiny.made("cal-ql"), {"pretrain.reference": "fitted"})
    train(fits, tmp_path / "run", tiny.DATA)
    assert RunDir(tmp_path / "run").done
    with pytest.raises(InputError, match=r"set alike in both: reference \(returns, then fitted\)"):
        train(changed(tiny.made("cal-ql"), {"finetune.reference": "fitted"}), tmp_path / "other", tiny.DATA)


@pytest.mark.parametrize(
    ("option", "value"), [("optimizer", "adam"), ("critic_hidden", (7,)), ("actor_layer_norm", True)]
)
def test_networks_and_optimisers_must_be_alike(option, value):
    with pytest.raises(InputError, match=rf"set alike in both: {option} \("):
        tiny.made("smac", **{f"finetune.{option}": value})


def test_states_that_are_alike_stay_as_they_are():
    rule = tiny.made("cql-sac").pretrain.algorithm
    state = rule.init(jax.random.key(0), tiny.DATA.spec())
    for other in (CQL, SAC, CalQL):
        fields = {field.name: getattr(rule, field.name) for field in dataclasses.fields(SAC)}
        jax.tree.map(np.testing.assert_array_equal, continued(state, other(**fields), tiny.DATA.spec()), state)


def test_states_of_another_kind_are_left_alone():
    state = {"weights": np.zeros(3)}
    assert continued(state, tiny.made("sac").finetune.algorithm, tiny.DATA.spec()) is state

"""From names to one resolved configuration: both tables, all scales, every option by name."""

import dataclasses
import itertools
import json
import math
import typing

import pytest

from calql.algorithms import AWAC, BC, CQL, IQL, O3F, ODT, SAC, TD3BC, VARIANTS, CalQL
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS
from calql.tasks import SCALES, Task
from calql.training.config import TASK_OPTIONS, Protocol, RunConfig, differs_from_paper, options, parse_value, resolve
from calql.training.run_dir import RunDir
from calql.types import InputError

TASK = next(iter(TASKS))
OWN = Task(id="own", env="calql.paper.envs.pointmaze:make", horizon=50, data=None)
EVERY_TASK = pytest.mark.parametrize("task", [*TASKS.values(), OWN], ids=lambda task: task.id)
EVERY_SCALE = pytest.mark.parametrize("scale", SCALES)


@EVERY_SCALE
@EVERY_TASK
def test_every_method_resolves_for_every_task_at_every_scale(task, scale, tmp_path):
    for method in METHODS.values():
        config = resolve(task, method.id, scale)
        assert isinstance(config, RunConfig)
        rules = [rule for rule in (method.offline, method.online) if rule]
        assert [type(phase.algorithm) for phase in config.phases] == rules
        assert [phase.name for phase in config.phases] == [
            name for name, rule in (("offline", method.offline), ("online", method.online)) if rule
        ]
        protocol = config.protocol
        for phase in config.phases:
            budget = phase.gradient_steps if phase.name == "offline" else phase.env_steps
            assert 0 < phase.eval_every <= budget
            if phase.name == "online":
                if protocol.updates_per_episode:
                    assert phase.gradient_steps == phase.env_steps * protocol.updates_per_episode // config.task.horizon
                else:
                    assert phase.gradient_steps == (phase.env_steps - protocol.start_steps) * protocol.utd
                assert phase.mixing == protocol.mixing
            else:
                assert (phase.env_steps, phase.mixing) == (0, 1.0)
            hash(phase.algorithm)  # it is a static argument of the compiled loop
        run_dir = RunDir(tmp_path / method.id)
        run_dir.create({"settings": config.settings})
        saved = run_dir.read_config()["settings"]
        assert {field.name for field in dataclasses.fields(Protocol)} <= set(saved)
        assert saved["discount"] == config.phases[0].algorithm.discount
        json.dumps(differs_from_paper(config), default=str)


@EVERY_TASK
def test_paper_scale_does_not_differ_from_the_paper(task):
    for method in METHODS:
        assert differs_from_paper(resolve(task, method, "paper")) == {}
        assert differs_from_paper(resolve(task, method, "smoke"))


@EVERY_TASK
def test_scales_are_ordered_by_their_budgets(task):
    budgets = [resolve(task, "cal-ql", scale) for scale in ("smoke", "laptop", "paper")]
    for one, two in itertools.pairwise(budgets):
        for a, b in zip(one.phases, two.phases, strict=True):
            assert a.gradient_steps < b.gradient_steps
    assert sum(phase.gradient_steps for phase in budgets[0].phases) <= 1000  # seconds


@EVERY_TASK
def test_bounds_of_q_hold_every_reachable_return(task):
    for discount in (0.9, 0.99):
        low, high = task.q_bounds(discount)
        assert low <= 0 <= high
        assert math.isfinite(low)
        assert math.isfinite(high)
        assert low < high
        for reward in map(task.map_reward, task.reward_range):
            assert low <= reward / (1 - discount) <= high
            assert low <= reward <= high
        if task.failure_reward is not None:
            assert task.failure_reward in [pytest.approx(task.map_reward(r)) for r in task.reward_range]
            assert low <= task.failure_reward / (1 - discount)


def test_reward_map_of_the_default_task():
    task = TASKS["pointmaze-medium-narrow"]
    assert (task.map_reward(0.0), task.map_reward(1.0)) == (-1.0, 10.0)
    low, high = task.q_bounds(0.9)
    assert (low, high) == (pytest.approx(-10.0), pytest.approx(100.0))


def test_negative_scales_keep_the_order_of_the_bounds():
    task = dataclasses.replace(OWN, reward_scale=-1.0, reward_range=(0.0, 2.0))
    assert task.q_bounds(0.5) == (-4.0, 0.0)


def test_the_clamp_takes_its_range_from_the_task_and_an_explicit_range_wins():
    for override, expected in (
        ({}, None),
        ({"target_q_clamp": True}, OWN.q_bounds(0.97)),
        ({"target_q_clamp": True, "target_q_range": (-3.0, 1.0)}, (-3.0, 1.0)),
    ):
        config = resolve(OWN, "cal-ql", "paper", overrides={"discount": 0.97} | override)
        assert {phase.algorithm.target_q_range for phase in config.phases} == {expected}


def test_overrides_win_over_the_scale_and_the_scale_over_the_defaults():
    row = dataclasses.replace(OWN, scales={"smoke": {"cql_alpha": 2.0, "batch_size": 8}, "laptop": {}, "paper": {}})
    config = resolve(row, "cql", "smoke", overrides={"batch_size": 4})
    assert (config.protocol.batch_size, config.phases[0].algorithm.cql_alpha) == (4, 2.0)
    assert resolve(row, "cql", "paper").phases[0].algorithm == CQL()
    own = {name: getattr(row, name) for name in TASK_OPTIONS}
    assert resolve(row, "cal-ql", "paper").protocol == Protocol(**own)


def test_variants_are_named_sets_of_samples_which_single_options_override():
    for name, samples in VARIANTS.items():
        config = resolve(OWN, "cal-ql", "paper", overrides={"variant": name, "num_random_actions": 3})
        algorithm = config.phases[0].algorithm
        assert algorithm.num_random_actions == 3
        for option, value in samples.items():
            assert option == "num_random_actions" or getattr(algorithm, option) == value


def test_the_online_weight_changes_the_online_phase_only():
    config = resolve(OWN, "cal-ql", "paper", overrides={"cql_alpha": 5.0, "cql_alpha_online": 0.5})
    assert [phase.algorithm.cql_alpha for phase in config.phases] == [5.0, 0.5]
    assert all(phase.algorithm.cql_alpha == 5.0 for phase in resolve(OWN, "cal-ql", "paper").phases)


def test_what_holds_in_fine_tuning_only():
    online = {"utd": 20, "actor_once_per_step": True, "iql_temperature_online": 7.0}
    phases = resolve(OWN, "cal-ql", overrides=online).phases
    assert [phase.algorithm.actor_every for phase in phases] == [1, 20]
    phases = resolve(OWN, "iql", overrides=online).phases
    assert [phase.algorithm.iql_temperature for phase in phases] == [3.0, 7.0]


def test_a_method_s_own_options_give_way_to_the_user_s():
    assert resolve(OWN, "awac").phases[-1].mixing == -1.0
    assert resolve(OWN, "awac", overrides={"mixing": 0.25}).phases[-1].mixing == 0.25
    assert resolve("pen-binary", "iql").task.reward_scale == 1.0
    assert resolve("pen-binary", "iql", overrides={"reward_scale": 3.0}).task.map_reward(-1.0) == -3.0


def test_the_table_of_methods_is_the_one_of_the_paper():
    rows = {name: (m.offline, m.online, resolve(OWN, name, "paper").protocol.mixing) for name, m in METHODS.items()}
    assert rows == {
        "cal-ql": (CalQL, CalQL, 0.5),
        "cql": (CQL, CQL, 0.5),
        "cql-sac": (CQL, SAC, 0.5),
        "hybrid": (None, SAC, 0.5),
        "sac-offline": (None, SAC, -1.0),
        "sac": (None, SAC, 0.0),
        "iql": (IQL, IQL, 0.5),
        "awac": (AWAC, AWAC, -1.0),
        "td3-bc": (TD3BC, TD3BC, 0.5),
        "o3f": (O3F, O3F, 0.5),
        "odt": (ODT, ODT, -1.0),
        "rlpd": (None, SAC, 0.5),
        "cal-ql-utd20": (CalQL, CalQL, 0.5),
        "bc": (BC, None, 0.5),
    }
    for name, method in METHODS.items():
        assert method.id == name
        assert method.title
        assert method.summary
        assert method.offline or method.online


# -- options by name ---------------------------------------------------------------------------------------------------


def written(value):
    """A value as one writes it on the command line."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(written, value)) + ")"
    return str(value).lower() if isinstance(value, bool) else str(value)


SAMPLES = {int: 3, float: 0.25, bool: True, str: "listing", tuple[int, ...]: (8, 4), tuple[float, float]: (-1.5, 2.0)}


@pytest.mark.parametrize("owner", [Protocol, CQL])
def test_every_option_is_read_by_name_with_its_own_type(owner):
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        assert field.name in options()
        kinds = typing.get_args(hints[field.name])
        optional = type(None) in kinds
        plain = next(kind for kind in (kinds if optional else [hints[field.name]]) if kind is not type(None))
        sample = typing.get_args(plain)[-1] if typing.get_origin(plain) is typing.Literal else SAMPLES[plain]
        for value in [sample, field.default, *([None] if optional else [])]:
            read = parse_value(field.name, written(value))
            assert read == value
            assert type(read) is type(value)
            assert field.name in resolve(OWN, "cal-ql").settings
        for nonsense in ("", "three", "1,x", "none" if not optional else "nothing"):
            if plain is str or (plain == tuple[int, ...] and nonsense == ""):
                continue
            with pytest.raises(InputError, match=field.name):
                parse_value(field.name, nonsense)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("offline_steps", "1e5", 100_000),
        ("actor_hidden", "512,512", (512, 512)),
        ("actor_hidden", "[512, 512,]", (512, 512)),
        ("target_q_clamp", "TRUE", True),
        ("cql_target_gap", "None", None),
        ("target_q_range", "none", None),
        ("cql_clip", "-inf,10", (-math.inf, 10.0)),
        ("critic_lr", "3e-4", 3e-4),
    ],
)
def test_forms_in_which_values_are_written(name, text, value):
    assert parse_value(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("utd", "1.5"),
        ("utd", "1.5e0"),
        ("utd", "1e400"),
        ("offline_steps", "nan"),
        ("target_q_clamp", "yes please"),
        ("cql_clip", "1"),
        ("cql_clip", "1,2,3"),
        ("critic_lr", "nan"),
    ],
)
def test_values_of_the_wrong_form_are_bad_input(name, text):
    with pytest.raises(InputError, match=name):
        parse_value(name, text)


def test_unknown_names_are_answered_with_the_nearest_ones():
    for call, hint in (
        (lambda: parse_value("cql_alfa", "1"), "cql_alpha"),
        (lambda: resolve(TASK, "cal-ql", overrides={"of_line_steps": 1}), "offline_steps"),
        (lambda: resolve("pointmaze-medum-narow", "cal-ql"), "pointmaze-medium-narrow"),
        (lambda: resolve(TASK, "calql"), "cal-ql"),
        (lambda: resolve(TASK, "cal-ql", "laptob"), "laptop"),
        (lambda: resolve(TASK, "cal-ql", overrides={"variant": "oficial"}), "official"),
    ):
        with pytest.raises(InputError, match=hint):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mixing", 1.5),
        ("mixing", -0.5),
        ("utd", 0),
        ("batch_size", 0),
        ("eval_episodes", 0),
        ("eval_every_online", 0),
        ("eval_every_offline", -1),
        ("log_every", 0),
        ("checkpoint_every", 0),
        ("replay_capacity", 49),
        ("offline_steps", -1),
        ("online_steps", -1),
        ("discount", 1.0),
        ("discount", -0.1),
        ("tau", 0.0),
        ("tau", 1.5),
        ("actor_lr", -1e-4),
        ("num_critics", 0),
        ("num_target_actions", 0),
        ("cql_temperature", 0.0),
        ("target_q_range", (1.0, -1.0)),
        ("actor_hidden", (0,)),
    ],
)
def test_values_out_of_range_are_bad_input(name, value):
    with pytest.raises(InputError, match=name):
        resolve(OWN, "cal-ql", overrides={name: value})


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_bad_input(seed):
    with pytest.raises(InputError, match="seed"):
        resolve(OWN, "cal-ql", seed=seed)

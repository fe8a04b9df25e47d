"""From names to one record: both tables, all scales, every option by any part of its path."""

import dataclasses
import itertools
import json
import math

import msgspec
import pytest

from calql.algorithms import AWAC, BC, CQL, IQL, O3F, ODT, SAC, SMAC, TD3BC, VARIANTS, CalQL, CalQLPlus
from calql.methods import Method
from calql.paper.methods import METHODS
from calql.paper.scales import SCALES
from calql.paper.tasks import DEFAULT_TASK, TASKS
from calql.rewards import Rewards
from calql.tasks import Task
from calql.training.experiment import Data, Experiment, Finetune, Measurement, Pretrain, decode, differences, encode
from calql.training.options import changed, differs_from_paper, experiment, explained, leaves, matching, resolve
from calql.training.synonyms import SYNONYMS
from calql.types import InputError

OWN = Task(id="own", env="calql.paper.envs.pointmaze:make", horizon=50, rewards=Rewards(low=0.0, high=1.0))
EVERY_TASK = pytest.mark.parametrize("task", [*TASKS.values(), OWN], ids=lambda task: task.id)
EVERY_SCALE = pytest.mark.parametrize("scale", SCALES)


@EVERY_SCALE
@EVERY_TASK
def test_every_method_has_a_record_for_every_task_at_every_scale_that_survives_json(task, scale):
    for method in METHODS.values():
        made = experiment(task, method.id, scale)
        rules = [rule for rule in (method.offline, method.online) if rule]
        assert [type(phase.algorithm) for phase in made.phases] == rules
        for phase in made.phases:
            assert 0 < phase.eval_every <= phase.length
            assert phase.gradient_steps(made.task.horizon) > 0
            hash(phase.algorithm)  # it is a static argument of the compiled loop
        read = decode(json.loads(json.dumps(encode(made), allow_nan=False)))
        assert differences(read, made) == []
        assert read.phases == made.phases
        json.dumps(differs_from_paper(made, task, method.id), default=str)


@EVERY_TASK
def test_paper_scale_does_not_differ_from_the_paper(task):
    for method in METHODS:
        assert differs_from_paper(experiment(task, method, "paper"), task, method) == {}
        assert differs_from_paper(experiment(task, method, "smoke"), task, method)


@EVERY_TASK
def test_scales_are_ordered_by_their_budgets(task):
    budgets = [experiment(task, "cal-ql", scale) for scale in SCALES]
    for one, two in itertools.pairwise(budgets):
        steps = [[phase.gradient_steps(made.task.horizon) for phase in made.phases] for made in (one, two)]
        assert all(a <= b for a, b in zip(*steps, strict=True))
        assert sum(steps[0]) < sum(steps[1])
    assert sum(phase.gradient_steps(50) for phase in budgets[0].phases) <= 1000  # seconds


def test_options_win_over_the_scale_and_the_scale_over_the_defaults():
    row = dataclasses.replace(OWN, scales={"smoke": {"cql_alpha": 2.0, "batch_size": 8}, "laptop": {}, "paper": {}})
    made = experiment(row, "cql", "smoke", options={"batch_size": 4})
    assert (made.pretrain.batch_size, made.pretrain.algorithm.cql_alpha) == (4, 2.0)
    official = experiment(row, "cql", "paper")
    assert official.pretrain == Pretrain(CQL())
    assert official.finetune == Finetune(CQL())
    assert official.measurement == Measurement()
    assert official.data == Data()


def test_a_method_s_own_options_give_way_to_the_user_s():
    assert experiment(OWN, "awac").finetune.mixing == -1.0
    assert experiment(OWN, "awac", options={"mixing": 0.25}).finetune.mixing == 0.25
    assert experiment("pen-binary", "iql").task.rewards.scale == 1.0
    assert experiment("pen-binary", "iql", options={"rewards.scale": 3.0}).task.rewards.map(-1.0) == -3.0


def test_the_table_of_methods_is_the_one_of_the_paper():
    rows = {}
    for name, m in METHODS.items():
        made = experiment(OWN, name, "paper")
        rows[name] = (m.offline, m.online, made.finetune.mixing if made.finetune else None)
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
        "bc": (BC, None, None),
        "wsrl": (CalQL, SAC, 0.0),
        "smac": (SMAC, SAC, 0.5),
        "cal-ql-plus": (CalQLPlus, CalQLPlus, 0.5),
    }
    for name, method in METHODS.items():
        assert method.id == name
        assert method.title
        assert method.summary
        assert method.offline or method.online


# -- names -------------------------------------------------------------------------------------------------------------


def test_every_option_is_set_by_its_whole_path_and_by_its_shortest_name():
    for method in METHODS:
        made = experiment(OWN, method)
        for leaf in leaves(made):
            assert [found.path for found in matching(made, leaf.name)] == [leaf.path]
            assert leaf in matching(made, leaf.path[-1])
            assert leaf.doc, leaf.name
            assert changed(made, {leaf.name: leaf.value}) == made


def test_a_name_in_both_phases_means_both_and_a_path_means_one():
    made = experiment(OWN, "cal-ql", options=["cql_alpha=3", "finetune.tau=0.1", "pretrain.algorithm.discount=0.9"])
    assert [phase.algorithm.cql_alpha for phase in made.phases] == [3.0, 3.0]
    assert [phase.algorithm.tau for phase in made.phases] == [0.005, 0.1]
    assert [phase.algorithm.discount for phase in made.phases] == [0.9, 0.99]


def test_the_more_special_of_two_options_wins_whatever_their_order():
    for options in (["batch_size=8", "finetune.batch_size=4"], ["finetune.batch_size=4", "batch_size=8"]):
        made = experiment(OWN, "cal-ql", options=options)
        assert (made.pretrain.batch_size, made.finetune.batch_size) == (8, 4)


def test_a_name_for_two_values_that_differ_already_is_refused_with_both_paths():
    """On the default task the weight is lowered for fine-tuning: setting "it" would silently undo that."""
    with pytest.raises(InputError, match=r"pretrain\.algorithm\.cql_alpha.*finetune\.algorithm\.cql_alpha"):
        experiment(DEFAULT_TASK, "cal-ql", options=["cql_alpha=10"])
    made = experiment(DEFAULT_TASK, "cal-ql", options=["pretrain.cql_alpha=10"])
    assert [phase.algorithm.cql_alpha for phase in made.phases] == [10.0, 0.5]
    assert experiment(DEFAULT_TASK, "cql-sac", options=["cql_alpha=10"]).pretrain.algorithm.cql_alpha == 10.0


@pytest.mark.parametrize(
    ("method", "name", "hint"),
    [
        ("sac", "cql_alpha", "alpha"),
        ("bc", "cql_alpha", "SAC|BC"),
        ("cal-ql", "iql_expectile", "CalQL"),
        ("iql", "awac_lambda", "IQL"),
        ("td3-bc", "backup_entropy", "TD3BC"),
        ("odt", "tau", "ODT"),
        ("bc", "online_steps", "offline_steps"),
        ("sac", "offline_steps", "online_steps"),
        ("iql", "variant", "samples none"),
        ("bc", "target_q_clamp", "has none"),
        ("odt", "actor_once_per_step", "cannot"),
    ],
)
def test_what_a_method_does_not_read_is_refused(method, name, hint):
    value = {"variant": "official", "target_q_clamp": "true", "actor_once_per_step": "true"}.get(name, "1")
    with pytest.raises(InputError, match=hint) as refused:
        experiment(OWN, method, options=[f"{name}={value}"])
    assert name in str(refused.value)


def test_unknown_names_are_answered_with_the_nearest_ones():
    for call, hint in (
        (lambda: experiment(OWN, "cal-ql", options={"cql_alfa": 1}), "cql_alpha"),
        (lambda: experiment(DEFAULT_TASK, "cal-ql", options={"of_line_steps": 1}), "offline_steps"),
        (lambda: experiment("pointmaze-medum-narow", "cal-ql"), "pointmaze-medium-narrow"),
        (lambda: experiment(DEFAULT_TASK, "calql"), "cal-ql"),
        (lambda: experiment(DEFAULT_TASK, "cal-ql", "laptob"), "laptop"),
        (lambda: experiment(DEFAULT_TASK, "cal-ql", options={"variant": "oficial"}), "official"),
    ):
        with pytest.raises(InputError, match=hint):
            call()


@pytest.mark.parametrize("name", SYNONYMS)
def test_names_of_other_libraries_are_answered_with_those_of_here(name):
    here = SYNONYMS[name]
    with pytest.raises(InputError, match=f"unknown option '{name}'; here it is {', '.join(here)} "):
        experiment(DEFAULT_TASK, "cal-ql", options={name: 1})
    for option in here:
        assert matching(experiment(DEFAULT_TASK, "cal-ql"), option)


@pytest.mark.parametrize("number", [1e300, -1e300, 1e-300])
def test_no_option_takes_a_number_that_jax_would_round_to_nothing_or_to_infinity(number):
    made = experiment(OWN, "cal-ql")
    floats = [leaf for leaf in leaves(made) if type(leaf.value) is float]
    assert len(floats) > 20
    for leaf in floats:
        with pytest.raises(InputError, match=f"option '{leaf.name}' cannot be"):
            changed(made, {leaf.name: number})


def test_a_row_may_name_what_this_method_does_not_read_but_not_what_none_does():
    row = dataclasses.replace(OWN, scales={"laptop": {"cql_alpha": 3.0, "finetune.iql_temperature": 2.0}})
    assert experiment(row, "sac").finetune.algorithm == experiment(OWN, "sac").finetune.algorithm
    with pytest.raises(InputError, match=r"task own at scale laptop.*cql_alpha"):
        experiment(dataclasses.replace(OWN, scales={"laptop": {"cql_alpa": 3.0}}), "cal-ql")


# -- the environment's own options -------------------------------------------------------------------------------------


def test_any_argument_of_the_environment_is_an_option():
    made = experiment("visual-ball-in-bowl", "cal-ql", options=["task.env.image_size=16"])
    assert made.task.env_options["image_size"] == 16
    assert experiment("visual-ball-in-bowl", "cal-ql", options={"image_size": 32}).task.env_options["image_size"] == 32


def with_options(render_mode=None, size=3, name="plain"):
    raise AssertionError("never made")


def test_arguments_that_the_task_leaves_alone_are_found_in_the_factory_s_signature():
    row = dataclasses.replace(OWN, env=with_options)
    made = experiment(row, "cal-ql", options=["env.size=5", "task.env.name=other"])
    assert made.task.env_options == {"size": 5, "name": "other"}
    with pytest.raises(InputError, match="did you mean size"):
        experiment(row, "cal-ql", options=["env.sise=5"])
    with pytest.raises(InputError, match="takes no options"):
        experiment(dataclasses.replace(OWN, env=lambda: None), "cal-ql", options=["env.size=5"])


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("offline_steps", "1e5", 100_000),
        ("actor_hidden", "512,512", (512, 512)),
        ("actor_hidden", "[512, 512,]", (512, 512)),
        ("one_buffer", "TRUE", True),
        ("cql_target_gap", "None", None),
        ("target_q_range", "none", None),
        ("target_q_range", "(-1.5, 2)", (-1.5, 2.0)),
        ("cql_clip", "-inf,10", (-math.inf, 10.0)),
        ("critic_lr", "3e-4", 3e-4),
        ("reference", "fitted", "fitted"),
        ("score", "last_reward/4", "last_reward/4"),
    ],
)
def test_forms_in_which_values_are_written_and_that_they_survive_the_record(name, text, value):
    made = experiment(OWN, "cal-ql", "paper", options=[f"{name}={text}"])
    for read in (made, decode(json.loads(json.dumps(encode(made), allow_nan=False)))):
        for leaf in matching(read, name):
            assert leaf.value == value
            assert type(leaf.value) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("utd", "1.5"),
        ("utd", "1.5e0"),
        ("utd", "1e400"),
        ("utd", ""),
        ("utd", "none"),
        ("offline_steps", "nan"),
        ("one_buffer", "yes please"),
        ("cql_clip", "1"),
        ("cql_clip", "1,2,3"),
        ("cql_clip", "1,nan"),
        ("critic_lr", "nan"),
        ("critic_lr", "three"),
        ("target_q_clamp", "perhaps"),
        ("reference", "fited"),
        ("encoder", "large"),
        ("mixing", "1.5"),
        ("mixing", "-0.5"),
        ("utd", "0"),
        ("batch_size", "0"),
        ("eval_episodes", "0"),
        ("eval_envs", "0"),
        ("eval_every_online", "0"),
        ("eval_every_offline", "-1"),
        ("log_every", "0"),
        ("checkpoint_every", "0"),
        ("replay_capacity", "49"),
        ("offline_steps", "-1"),
        ("online_steps", "-1"),
        ("discount", "1.0"),
        ("discount", "-0.1"),
        ("tau", "0.0"),
        ("tau", "1.5"),
        ("actor_lr", "-1e-4"),
        ("num_critics", "0"),
        ("num_target_actions", "0"),
        ("cql_temperature", "0"),
        ("target_q_range", "1,-1"),
        ("actor_hidden", "0"),
        ("actor_hidden", ""),
        ("rewards.scale", "0"),
        ("rewards.bias", "inf"),
        ("horizon", "0"),
        ("score", "last_reward/0"),
    ],
)
def test_values_of_the_wrong_form_or_out_of_bounds_are_bad_input(name, text):
    with pytest.raises(InputError, match=name.split(".")[-1]):
        experiment(OWN, "cal-ql", options=[f"{name}={text}"])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_bad_input(seed):
    with pytest.raises(InputError, match="seed"):
        experiment(OWN, "cal-ql", seed=seed)


@pytest.mark.parametrize("text", ["cql_alpha", "=3", ""])
def test_options_of_another_form_are_bad_input(text):
    with pytest.raises(InputError, match="NAME=VALUE"):
        experiment(OWN, "cal-ql", options=[text])


# -- shorthands --------------------------------------------------------------------------------------------------------


def test_the_clamp_takes_its_range_from_the_task_and_an_explicit_range_wins():
    for override, expected in (
        ({}, None),
        ({"target_q_clamp": True}, OWN.rewards.q_bounds(0.97)),
        ({"target_q_clamp": "true", "target_q_range": (-3.0, 1.0)}, (-3.0, 1.0)),
    ):
        made = experiment(OWN, "cal-ql", "paper", options={"discount": 0.97} | override)
        assert {phase.algorithm.target_q_range for phase in made.phases} == {expected}
    unknown = dataclasses.replace(OWN, rewards=Rewards())
    with pytest.raises(InputError, match=r"rewards\.low"):
        experiment(unknown, "cal-ql", options={"target_q_clamp": True})


def test_variants_are_named_sets_of_samples_which_single_options_override():
    for name, samples in VARIANTS.items():
        algorithm = experiment(
            OWN, "cal-ql", "paper", options={"variant": name, "num_random_actions": 3}
        ).pretrain.algorithm
        assert algorithm.num_random_actions == 3
        for option, value in samples.items():
            assert option == "num_random_actions" or getattr(algorithm, option) == value


def test_the_policy_of_fine_tuning_may_move_once_per_step():
    phases = experiment(OWN, "cal-ql", options={"utd": 20, "actor_once_per_step": True}).phases
    assert [phase.algorithm.actor_every for phase in phases] == [1, 20]


# -- parts that fit together -------------------------------------------------------------------------------------------


def test_rules_that_learn_different_things_are_refused_before_anything_runs():
    with pytest.raises(InputError, match="IQL and SAC"):
        experiment(OWN, Method("odd", "Odd", IQL, SAC))
    experiment(OWN, Method("fine", "Fine", CQL, SAC))


def test_what_a_record_does_not_name_takes_its_default_and_what_it_names_beyond_is_told():
    made = experiment(OWN, "cal-ql")
    record = encode(made)
    del record["finetune"]["utd"], record["finetune"]["algorithm"]["tau"], record["measurement"]["eval_envs"]
    read = decode(record)
    assert (read.finetune.utd, read.finetune.algorithm.tau, read.measurement.eval_envs) == (1, 0.005, 10)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1),
        ("seed", "x"),
        ("finetune.utd", 0),
        ("finetune.rule", "NoRule"),
        ("task.horizon", None),
        ("data", 3),
    ],
)
def test_a_record_that_was_damaged_is_bad_input(path, value):
    record = encode(experiment(OWN, "cal-ql"))
    *above, last = path.split(".")
    part = record
    for name in above:
        part = part[name]
    part[last] = value
    with pytest.raises(InputError):
        decode(record)


def test_the_record_is_what_msgspec_reads_without_help_but_for_the_rules():
    record = encode(experiment(OWN, "cal-ql"))
    assert msgspec.convert(record["measurement"], Measurement) == Measurement(
        **{field.name: record["measurement"][field.name] for field in dataclasses.fields(Measurement)}
    )
    assert isinstance(decode(record), Experiment)


# -- telling -----------------------------------------------------------------------------------------------------------


def test_everything_is_explained_with_who_set_it():
    _, set_by = resolve(DEFAULT_TASK, "iql", "laptop", options=["tau=0.5"])
    assert set_by["pretrain.algorithm.tau"] == "you"
    assert "task" in set_by["pretrain.algorithm.discount"]
    assert "method iql" in set_by["pretrain.algorithm.iql_expectile"]
    assert "scale laptop" in set_by["measurement.log_every"]
    text = explained("cql_alpha", DEFAULT_TASK, "cal-ql", "laptop", 0, None, [])
    for part in (
        "pretrain.algorithm.cql_alpha = 5.0",
        "finetune.algorithm.cql_alpha = 0.5",
        "weight",
        "task",
        "paper: 5.0",
    ):
        assert part in text


def test_prose_is_no_part_of_a_run():
    """Another wording of a task's summary must not make its runs different ones."""
    told = dataclasses.replace(OWN, summary="other words", scales={"paper": {"tau": 0.5}})
    assert differences(experiment(OWN, "cal-ql"), experiment(told, "cal-ql")) == []

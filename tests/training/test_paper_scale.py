"""`--scale paper`: what every row prints against a committed file, what it must be by the sources, and that it runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from calql.data.load import load_for
from calql.paper.tasks import TASKS
from calql.tasks import load_attribute
from calql.training import loop
from calql.training.options import experiment, leaves
from calql.training.record import new_record
from calql.training.run_dir import RunDir
from calql.training.state import Training

GOLDEN = json.loads((Path(__file__).parent / "paper_scale.json").read_text())

COMMON = dict(
    discount=0.99, batch_size=256, actor_lr=1e-4, critic_lr=3e-4, tau=0.005, alpha_multiplier=1.0, target_entropy=None,
    num_critics=2, num_target_actions=10, num_random_actions=10, num_policy_actions=10, num_next_actions=10,
    cql_temperature=1.0, cql_clip=None, backup_entropy=False, action_clip=0.99999, log_std_multiplier=1.0,
    log_std_offset=-1.0, output_gain=0.01, utd=1, eval_episodes=20, target_q_range=None, replay_capacity=1_000_000,
)  # fmt: skip
"""`nakamotoo/Cal-QL:JaxCQL/conservative_sac.py`, `conservative_sac_main.py`: the same in every domain."""

ANTMAZE = dict(
    actor_hidden=[256] * 2, critic_hidden=[256] * 4, cql_alpha=5.0, cql_target_gap=0.8, importance_sampling=True,
    **{"rewards.scale": 10.0, "rewards.bias": -5.0},
    offline_steps=1_000_000, online_steps=1_000_000, mixing=0.5, horizon=1000,
    eval_every_offline=50_000, eval_every_online=2_000, tail_bootstrap=False,
)  # fmt: skip
"""`scripts/run_antmaze.sh`, Appendix G."""
KITCHEN = dict(
    actor_hidden=[512] * 3, critic_hidden=[512] * 3, cql_alpha=5.0, cql_target_gap=None, importance_sampling=False,
    **{"rewards.scale": 1.0, "rewards.bias": 0.0},
    offline_steps=500_000, online_steps=1_250_000, mixing=0.25, horizon=1000,
    eval_every_offline=50_000, eval_every_online=5_000, tail_bootstrap=True,
)  # fmt: skip
"""`scripts/run_kitchen.sh` (commit c510025), whose 1.5M online steps are 1.25M in Appendix G."""
ADROIT = dict(
    actor_hidden=[512] * 2, critic_hidden=[512] * 3, cql_alpha=1.0, cql_target_gap=None, importance_sampling=True,
    **{"rewards.scale": 10.0, "rewards.bias": 5.0},
    offline_steps=20_000, online_steps=1_000_000, mixing=0.5, horizon=200,
    eval_every_offline=2_000, eval_every_online=2_000, tail_bootstrap=False,
)  # fmt: skip
"""`scripts/run_adroit.sh`, whose 200K online steps of the pen are 300K in Appendix G."""
VISUAL = dict(
    discount=0.96, batch_size=64, num_random_actions=4, num_policy_actions=4, num_next_actions=0, num_target_actions=4,
    cql_alpha=5.0, **{"finetune.cql_alpha": 0.5}, cql_target_gap=None, importance_sampling=True, utd=5,
    **{"rewards.scale": 11.0, "rewards.bias": -1.0},
    offline_steps=50_000, online_steps=100_000, mixing=0.5, horizon=40,
    actor_hidden=[256] * 2, critic_hidden=[256] * 2, action_clip=0.999, random_crop=4, image_size=128, encoder="impala",
    replay_capacity=100_000,
)  # fmt: skip
"""Appendix G.4, Table 3, and `Asap7772/jaxrl2_finetuning_benchmark:examples/train_pixels_cql.py`; a replay that holds
all steps is as good as a larger one."""

SOURCES = {
    "antmaze-large-diverse": ANTMAZE,
    "antmaze-large-play": ANTMAZE,
    "antmaze-medium-diverse": ANTMAZE,
    "antmaze-medium-play": ANTMAZE,
    "antmaze-medium-narrow": ANTMAZE | dict(offline_steps=250_000),
    "kitchen-partial": KITCHEN,
    "kitchen-mixed": KITCHEN,
    "kitchen-complete": KITCHEN,
    "pen-binary": ADROIT | dict(online_steps=300_000, horizon=100),
    "door-binary": ADROIT,
    "relocate-binary": ADROIT,
    "visual-pick-place": VISUAL,
    "visual-ball-in-bowl": VISUAL,
}


RAW, SHIFTED = dict(**{"rewards.scale": 1.0, "rewards.bias": 0.0}), dict(**{"rewards.scale": 1.0, "rewards.bias": -1.0})
IQL = dict(actor_lr=3e-4, critic_lr=3e-4, actor_hidden=(256, 256), critic_hidden=(256, 256), tau=0.005, batch_size=256)
AWAC = dict(
    actor_lr=3e-4, critic_lr=3e-4, weight_decay=1e-4, batch_size=1024, actor_hidden=(256,) * 4,
    critic_hidden=(256,) * 4, num_target_actions=1, one_buffer=True, replay_capacity=1_000_000,
) | RAW  # fmt: skip
RLPD = dict(
    num_critics=10, critic_layer_norm=True, target_subset=2, actor_on_mean=True, utd=20,
    mixing=0.5, num_target_actions=1, start_steps=5_000, actor_lr=3e-4, critic_lr=3e-4, actor_hidden=(256,) * 3,
    critic_hidden=(256,) * 3, target_entropy_per_action=0.5,
)  # fmt: skip
WSRL = dict(
    num_critics=10, critic_layer_norm=True, actor_layer_norm=True, target_subset=2, actor_on_mean=False,
    mixing=0.0, one_buffer=False, warmup_steps=5_000, start_steps=0, utd=4, batch_size=256, online_steps=500_000,
    actor_lr=1e-4, critic_lr=3e-4, tau=0.005, discount=0.99, target_entropy=None, backup_entropy=False,
    num_target_actions=10, **{"finetune.actor_every": 4, "pretrain.actor_every": 1},
)  # fmt: skip
BASELINES = {
    # nakamotoo/implicit_q_learning, branch dev_mitsuhiko; the share of Adroit is the paper's
    ("iql", "antmaze-large-play"): IQL | SHIFTED | dict(
        iql_expectile=0.9, iql_temperature=10.0, mixing=0.5, exploration_std=None, actor_dropout=0.0,
        offline_steps=1_000_000, online_steps=1_000_000),
    ("iql", "kitchen-mixed"): IQL | RAW | dict(
        iql_expectile=0.7, iql_temperature=0.5, mixing=0.25, actor_dropout=0.1, offline_steps=500_000),
    ("iql", "door-binary"): IQL | RAW | dict(
        iql_expectile=0.8, iql_temperature=3.0, mixing=0.2, exploration_std=0.03, offline_steps=20_000,
        stop_at_success=True),
    # nakamotoo/jaxrl, branch dev_mitsuhiko; λ of the kitchen is the paper's
    ("awac", "antmaze-large-play"): AWAC | dict(awac_lambda=1.0, offline_steps=1_000_000, online_steps=1_000_000),
    ("awac", "kitchen-mixed"): AWAC | dict(awac_lambda=1.0, offline_steps=500_000, online_steps=1_500_000),
    ("awac", "pen-binary"): AWAC | dict(awac_lambda=0.3, offline_steps=25_000, online_steps=300_000),
    # nakamotoo/online-dt
    ("odt", "antmaze-large-play"): RAW | dict(
        odt_width=1024, odt_layers=4, odt_heads=4, odt_dropout=0.1, odt_context=20, odt_acting_context=5,
        actor_lr=1e-3, odt_weight_decay=0.0, odt_warmup=10_000, odt_gradient_clip=0.25, odt_temperature_lr=1e-4,
        batch_size=256, offline_steps=7_000, online_steps=1_000_000, updates_per_episode=300),
    # sfujim/TD3_BC, TD3_BC.py
    ("td3-bc", "antmaze-large-play"): dict(
        actor_lr=3e-4, critic_lr=3e-4, actor_hidden=(256, 256), critic_hidden=(256, 256), td3_bc_alpha=2.5,
        target_noise=0.2, target_noise_clip=0.5, exploration_std=0.1, actor_every=2),
    # ikostrikov/rlpd, configs/rlpd_config.py and README; the subset of two is nakamotoo/rlpd's
    ("rlpd", "antmaze-large-play"): RLPD | SHIFTED,
    ("rlpd", "door-binary"): RLPD | RAW | dict(online_steps=1_000_000),
    ("cal-ql-utd20", "antmaze-large-play"): {
        name: RLPD[name] for name in ("num_critics", "critic_layer_norm", "target_subset", "actor_on_mean", "utd")
    } | dict(cql_target_gap=0.8, num_target_actions=10, start_steps=0, **{"rewards.scale": 10.0, "rewards.bias": -5.0}),
    # zhouzypaul/wsrl, experiments/configs/train_config.py and experiments/scripts; a batch of 1024 is cut into four
    ("wsrl", "antmaze-large-diverse"): WSRL | dict(
        actor_hidden=(256,) * 2, critic_hidden=(256,) * 4, offline_steps=1_000_000, cql_target_gap=0.8, cql_alpha=1.0,
        **{"rewards.scale": 10.0, "rewards.bias": -5.0, "finetune.num_target_actions": 10}),
    ("wsrl", "kitchen-partial"): WSRL | dict(
        actor_hidden=(512,) * 3, critic_hidden=(512,) * 3, offline_steps=250_000, cql_target_gap=None, cql_alpha=5.0,
        importance_sampling=False, tail_bootstrap=False, horizon=280,
        **{"rewards.scale": 1.0, "rewards.bias": -4.0, "finetune.num_target_actions": 1}),
    ("wsrl", "pen-binary"): WSRL | dict(
        actor_hidden=(512,) * 2, critic_hidden=(512,) * 3, offline_steps=20_000, cql_target_gap=None, cql_alpha=1.0,
        **{"rewards.scale": 10.0, "rewards.bias": 5.0, "finetune.num_target_actions": 1}),
    # The optimiser is all that is known of its settings (abstracts and summaries; see docs/methods/smac.md).
    ("smac", "kitchen-partial"): {"pretrain.optimizer": "muon", "finetune.optimizer": "muon"},
}  # fmt: skip


def settings(made):
    """Options by their last name (that of pre-training, where the phases differ) and by the last two of their path."""
    flat = {}
    for leaf in leaves(made):
        flat.setdefault(leaf.path[-1], leaf.value)
        flat[".".join(leaf.path[-2:])] = leaf.value
        flat[f"{leaf.path[0]}.{leaf.path[-1]}"] = leaf.value
    return flat


@pytest.mark.parametrize(("method", "task"), BASELINES, ids=str)
def test_the_settings_of_the_baselines_are_those_of_their_sources(method, task):
    found, wanted = settings(experiment(task, method, "paper")), BASELINES[method, task]
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("task", TASKS)
def test_what_is_printed_is_what_is_committed(task, capsys):
    from calql.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--task", task, "--scale", "paper", "--print-config"])
    assert json.loads(capsys.readouterr().out) == GOLDEN[task]


@pytest.mark.parametrize("task", SOURCES)
def test_the_settings_are_those_of_the_sources(task):
    made, wanted = experiment(task, "cal-ql", "paper"), COMMON | SOURCES[task]
    found = json.loads(json.dumps(settings(made)))
    assert {name: found[name] for name in wanted} == wanted
    assert not GOLDEN[task]["differs_from_paper"]
    assert [type(phase.algorithm).__name__ for phase in made.phases] == ["CalQL", "CalQL"]


def test_every_task_of_the_table_has_its_sources():
    assert set(GOLDEN) == set(TASKS) == {*SOURCES, "pointmaze-medium-narrow"}


SMALL_ODT = {"odt_width": 32, "odt_layers": 1, "updates_per_episode": 5}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "method", "options"),
    [
        *((task, "cal-ql", {"utd": 1}) for task in ("antmaze-medium-play", "pen-binary", "kitchen-mixed")),
        ("visual-pick-place", "cal-ql", {"utd": 1}),
        ("antmaze-large-play", "awac", {}),
        ("antmaze-large-play", "odt", SMALL_ODT),
    ],
)
def test_it_runs(task, method, options, tmp_path):
    """Data from the task's own builder, then twenty gradient steps across the border; a task for each shape of
    networks. Small batches, short episodes, and an eighth of the images' sides: the same programs.
    """
    row = TASKS[task]
    few = dict(offline_steps=10, online_steps=10, eval_episodes=1, eval_every_offline=10, eval_every_online=10)
    smaller = {"batch_size": 8, "log_every": 5, "replay_capacity": 500, "task.horizon": 20}
    smaller |= {"env.image_size": 16} if row.domain == "visual" else {}
    if method != "cal-ql":  # the data are larger than the one buffer that they share with new transitions
        smaller |= {"replay_capacity": 20}
    made = experiment(row, method, "paper", options=few | smaller | options)
    load_attribute(row.builder)(made.task, seed=0, transitions=100)
    data = load_for(made.task, made.data.uri)
    run_dir = RunDir(tmp_path / "run")
    run_dir.create(new_record(made, data, {}))
    trainer = Training(made, data, run_dir)
    for _ in loop.run(trainer):
        pass
    trainer.close()
    rows = run_dir.read_rows("train.csv")
    assert [int(r["grad_step"]) for r in rows][:2] == [5, 10]
    assert all(np.isfinite(float(r["actor_loss"])) for r in rows)
    assert run_dir.done

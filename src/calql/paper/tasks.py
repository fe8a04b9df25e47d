"""The table of tasks. A task is a row of names and numbers; task ids appear only here.

Factories are named as `module:attribute` strings and imported only when they are used, so that reading the table is
fast. `Task.scales` holds the *differences* from the library's defaults (which are the official code's settings) at
each scale; any option of a run may be named there (`calql.training.options`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from calql.paper.locomotion import registered
from calql.paper.scales import SCALES
from calql.rewards import Rewards
from calql.tasks import Source, Task, load_attribute, nearest
from calql.types import InputError


def _antmaze(maze: str, commands: str, summary: str, recipe: Mapping[str, Any] | None = None, **paper: Any) -> Task:
    """An AntMaze row (Appendix G.1; `nakamotoo/Cal-QL:scripts/run_antmaze.sh`)."""
    id = f"antmaze-{maze}-{commands}"
    published = Source(
        f"minari:D4RL/antmaze/{maze}-{commands}-*",
        adapt="calql.paper.envs.antmaze:from_gymnasium_robotics",
        env_options={"physics": "gymnasium"},
    )
    return Task(
        id=id,
        summary=summary,
        domain="antmaze",
        env="calql.paper.envs.antmaze:make",
        env_options={"maze": maze, "physics": "d4rl"},
        data=f"local:{id}-v1",
        builder="calql.paper.demonstrators.antmaze:build",
        recipe={"maze": maze, "commands": commands, "on_arrival": "continue", "to_goal": 0.25, **(recipe or {})},
        earlier={f"local:{id}": {"spread": 0.0}},
        sources=() if commands == "narrow" else (published,),  # no narrow set has been published
        horizon=1000,
        rewards=Rewards(scale=10.0, bias=-5.0, low=0.0, high=1.0, failing=0.0),
        scales={
            "smoke": dict(horizon=50),
            "laptop": dict(
                offline_steps=150_000,
                online_steps=25_000,
                batch_size=128,
                eval_every_offline=25_000,
                eval_every_online=2_500,
                eval_episodes=20,
                log_every=1_000,
                checkpoint_every=25_000,
                # A fixed weight: the gap of 0.8 is for the release's 30 sampled actions, not for the listing's 8.
                cql_alpha=5.0,
                actor_lr=1e-3,
                critic_lr=1e-3,
                tau=0.01,
            ),
            "desk": dict(
                offline_steps=160_000,
                eval_every_offline=20_000,
                eval_every_online=5_000,
                checkpoint_every=40_000,
                cql_alpha=5.0,
            ),
            "paper": {"cql_target_gap": 0.8} | paper,
        },
    )


def _kitchen(kind: str, tasks: tuple[str, ...], summary: str, **recipe: Any) -> Task:
    """A FrankaKitchen row (Appendix G.2; `nakamotoo/Cal-QL:scripts/run_kitchen.sh`)."""
    id = f"kitchen-{kind}"
    return Task(
        id=id,
        summary=summary,
        domain="kitchen",
        env="calql.paper.envs.kitchen:make",
        env_options={"tasks": tasks},
        data=f"local:{id}",
        builder="calql.paper.demonstrators.kitchen:build",
        recipe={"tasks": tasks, **recipe},
        sources=(Source(f"minari:D4RL/kitchen/{kind}-*", adapt="calql.paper.envs.kitchen:from_gymnasium_robotics"),),
        horizon=280,
        rewards=Rewards(low=0.0, high=4.0),
        score="last_reward/4",
        scales={
            "smoke": dict(horizon=50),
            "laptop": dict(
                offline_steps=50_000,
                online_steps=30_000,
                batch_size=128,
                eval_every_offline=10_000,
                eval_every_online=1_500,
                eval_episodes=10,
                log_every=1_000,
                checkpoint_every=10_000,
                # Rewards in [−1, 0], with the demonstrations' ends as good as success: values converge in these steps.
                **{"rewards.scale": 0.25, "rewards.bias": -1.0},
                mixing=0.25,
                importance_sampling=False,
                tail_bootstrap=True,
                actor_lr=3e-4,
                tau=0.01,
                actor_hidden=(256, 256),
            ),
            "desk": dict(
                online_steps=100_000,
                eval_every_online=5_000,
                mixing=0.25,
                importance_sampling=False,
                tail_bootstrap=True,
            ),
            "paper": dict(
                horizon=1000,
                offline_steps=500_000,
                online_steps=1_250_000,
                mixing=0.25,
                actor_hidden=(512, 512, 512),
                critic_hidden=(512, 512, 512),
                importance_sampling=False,
                tail_bootstrap=True,
                eval_every_online=5_000,
            ),
        },
    )


def _adroit(
    hand: str, horizon: int, transitions: int, summary: str, recipe: Mapping[str, Any] | None = None, **paper: Any
) -> Task:
    """An Adroit row with binary rewards (Appendix G.3; `nakamotoo/Cal-QL:scripts/run_adroit.sh`).

    The first version of the data had `transitions` from the clone; `recipe` changes it for the next one.
    """
    relabel = "calql.paper.envs.adroit:relabel"
    first = {"transitions": transitions, "policy": "clone", "noise": (0.0, 0.1)}
    return Task(
        id=f"{hand}-binary",
        summary=summary,
        domain="adroit",
        env="calql.paper.envs.adroit:make",
        env_options={"hand": hand},
        data=f"local:{hand}-binary" + ("-v1" if recipe else ""),
        builder="calql.paper.demonstrators.adroit:build",
        recipe={"hand": hand, "transitions": transitions, **(recipe or {})},
        earlier={f"local:{hand}-binary": first} if recipe else {},
        sources=(
            Source("awac:*", reader={"task": hand}),
            Source(f"minari:D4RL/{hand}/*", adapt=relabel),
            Source("d4rl:*", adapt=relabel),
        ),
        horizon=horizon,
        rewards=Rewards(scale=10.0, bias=5.0, low=-1.0, high=0.0, failing=-1.0),
        stop_at_success=True,
        scales={
            "smoke": dict(horizon=50),
            "laptop": dict(
                online_steps=20_000,
                batch_size=128,
                eval_every_online=1_000,
                checkpoint_every=10_000,
                # Fewer and smaller updates than at `paper` scale: a faster critic and an effective weight. Target
                # actions between the listing's one and the release's ten (chosen as told in `results/README.md`).
                actor_lr=3e-4,
                critic_lr=1e-3,
                tau=0.01,
                cql_alpha=8.0,
                num_target_actions=4,
            ),
            # The official networks and actions: critics of 256 × 2 learn nothing on the door (`results/README.md`).
            # With products in bfloat16, these take about an hour.
            "desk": dict(
                offline_steps=20_000,
                online_steps=40_000,
                eval_every_offline=2_500,
                eval_every_online=2_000,
                checkpoint_every=20_000,
                variant="official",
                actor_lr=1e-4,
                actor_hidden=(512, 512),
                critic_hidden=(512, 512, 512),
                critic_precision="bfloat16",
                cql_alpha=1.0,
            ),
            "paper": dict(
                offline_steps=20_000,
                eval_every_offline=2_000,
                checkpoint_every=20_000,
                actor_hidden=(512, 512),
                critic_hidden=(512, 512, 512),
                cql_alpha=1.0,
            )
            | paper,
        },
    )


VISUAL = dict(
    discount=0.96,
    cql_alpha=5.0,
    **{"finetune.cql_alpha": 0.5},
    utd=5,
    batch_size=64,
    variant="listing",
    num_target_actions=4,
)
"""The visual tasks, after the paper and Asap7772/jaxrl2_finetuning_benchmark, `examples/train_pixels_cql.py`."""


def _visual(name: str, summary: str, **objects: str) -> Task:
    """A task of the arm with a camera (Appendix G.4; Asap7772/jaxrl2_finetuning_benchmark)."""
    return Task(
        id=f"visual-{name}",
        summary=f"{summary}; seen through a camera",
        domain="visual",
        env="calql.paper.envs.pick_place:make",
        env_options={"image_size": 48, **objects},
        data=f"local:visual-{name}",
        builder="calql.paper.demonstrators.pick_place:build",
        recipe={"transitions": 24_000, "mistaken": 0.3, "fumble": 0.05},
        horizon=40,
        rewards=Rewards(scale=11.0, bias=-1.0, low=0.0, high=1.0, failing=0.0),
        scales={
            "smoke": dict(utd=1),
            "laptop": VISUAL
            | dict(
                offline_steps=12_000,
                online_steps=2_000,
                eval_every_offline=2_000,
                eval_every_online=200,
                eval_episodes=30,
                checkpoint_every=4_000,
                replay_capacity=5_000,
                cql_alpha=1.0,
                random_crop=2,
                actor_hidden=(256, 256),
                critic_hidden=(256, 256),
                actor_lr=3e-4,
                critic_lr=1e-3,
                tau=0.01,
            ),
            "desk": VISUAL | dict(online_steps=6_000, eval_every_online=300, random_crop=2),
            "paper": VISUAL
            | dict(
                **{"env.image_size": 128},
                encoder="impala",
                offline_steps=50_000,
                online_steps=100_000,
                eval_every_offline=5_000,
                checkpoint_every=25_000,
                replay_capacity=100_000,
                actor_hidden=(256, 256),
                critic_hidden=(256, 256),
                action_clip=0.999,
            ),
        },
    )


ALL_FOUR = ("microwave", "kettle", "light switch", "slide cabinet")
MIXED = ("microwave", "kettle", "bottom burner", "light switch")

TASKS: dict[str, Task] = {
    task.id: task
    for task in [
        Task(
            id="pointmaze-medium-narrow",
            summary="a point with inertia through a maze, from narrow demonstrations",
            domain="pointmaze",
            env="calql.paper.envs.pointmaze:make",
            data="local:pointmaze-medium-narrow",
            builder="calql.paper.demonstrators.pointmaze:build",
            horizon=51,
            rewards=Rewards(scale=11.0, bias=-1.0, low=0.0, high=1.0, failing=0.0),
            scales={
                "smoke": dict(online_steps=200),
                # Rewards −1/+10 and α 5 → 0.5 as in the visual task, where the paper shows unlearning (Fig. 2, 3).
                "laptop": dict(
                    offline_steps=20_000,
                    online_steps=5_000,
                    batch_size=128,
                    eval_every_offline=5_000,
                    eval_every_online=250,
                    eval_episodes=30,
                    replay_capacity=50_000,
                    discount=0.97,
                    tau=0.01,
                    cql_alpha=5.0,
                    **{"finetune.cql_alpha": 0.5},
                ),
                "desk": dict(
                    offline_steps=20_000,
                    online_steps=20_000,
                    eval_every_offline=2_500,
                    eval_every_online=1_000,
                    discount=0.97,
                    cql_alpha=5.0,
                    **{"finetune.cql_alpha": 0.5},
                ),
                "paper": dict(
                    offline_steps=250_000,
                    online_steps=100_000,
                    cql_alpha=5.0,
                    **{"finetune.cql_alpha": 0.5},
                    eval_every_offline=25_000,
                    checkpoint_every=25_000,
                ),
            },
        ),
        _antmaze("large", "diverse", "an ant through the large maze, from random starts to random goals"),
        _antmaze("large", "play", "an ant through the large maze, along hand-picked ways"),
        _antmaze("medium", "diverse", "an ant through the medium maze, from random starts to random goals"),
        _antmaze("medium", "play", "an ant through the medium maze, along hand-picked ways"),
        _antmaze(
            "medium",
            "narrow",
            "an ant through the medium maze, from one start to one goal (Fig. 8)",
            recipe={"transitions": 100_000, "stranded": 0.5, "wander": 0.3, "stumbling": 0.1},
            offline_steps=250_000,
        ),
        _kitchen(
            "partial",
            ALL_FOUR,
            "four subtasks; few of the data solve all of them",
            transitions=136_950,
            target_share=0.05,
        ),
        _kitchen(
            "mixed",
            MIXED,
            "four subtasks; none of the data solves all of them",
            transitions=136_950,
            target_share=0.0,
        ),
        _kitchen(
            "complete",
            ALL_FOUR,
            "four subtasks, from 19 demonstrations of all",
            transitions=4_100,
            target_share=1.0,
            failures=False,
        ),
        _adroit(
            "pen",
            100,
            20_000,
            "a 24-joint hand turns a pen to a given pose",
            recipe={"transitions": 40_000, "policy": "improved", "noise": (0.1, 0.4)},
            online_steps=300_000,
        ),
        _adroit("door", 200, 30_000, "a 24-joint hand opens a latched door"),
        _adroit("relocate", 200, 3_000, "a 24-joint hand carries a ball to a given place"),
        _visual("pick-place", "a small arm puts one of five objects, and none of five others, into a bowl"),
        _visual(
            "ball-in-bowl", "a small arm puts a ball, and not the peg, into a bowl", target="ball", distractor="peg"
        ),
    ]
}

DEFAULT_TASK = "pointmaze-medium-narrow"
"""The task of commands that name none."""

DEMO_TASK = "door-binary"
DEMO_OPTIONS = ("offline_steps=8000", "online_steps=8000", "acting_tau=0.001")
"""What `calql demo` runs, as it shows the paper's claim within minutes: both methods begin in the middle, and an
average of the policy acts, without which scores on the door jump with every few hundred updates (`results/README.md`,
"The demo")."""


def with_data(what: str) -> Task:
    """The task that a task id or the URI of its local data (any version) names, with the recipe of those data.

    Raises InputError for an unknown name, and for data that no builder makes.
    """
    if not what.startswith("local:"):
        task = get_task(what)
        if task.builder is None:
            raise InputError(f"task '{what}' has no local builder; give its data with --data")
        return task
    found = next(filter(None, (task.building(what) for task in TASKS.values())), None)
    if found is None:
        known = [uri for task in TASKS.values() for uri in (str(task.data), *task.earlier)]
        raise nearest(what, known, "local data set")
    return found


A_MACHINE = {"eval_envs": 1, "eval_untrained": False}
"""Options for an environment of which nothing is known: it may be a machine, which exists once and can break."""


def get_task(name: str) -> Task:
    """The task of that id, of a Gymnasium id (`Pendulum-v1`), or the user's own from `package.module:factory`.

    A factory may return a `Task` (full control) or a Gymnasium environment; the latter, as a Gymnasium id, gives a task
    with the environment's own horizon, raw rewards and success signal. An environment of the user's own is opened once
    at a time, and nothing untrained moves it (`A_MACHINE`). Raises InputError for an unknown name.
    """
    if name in TASKS:
        return TASKS[name]
    if re.search(r"-v\d+$", name):
        return registered(name)
    if ":" not in name:
        raise InputError(f"{nearest(name, TASKS, 'task')}; or name a Gymnasium id, or your own package.module:factory")
    try:
        made = load_attribute(name)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"'{name}' failed ({type(error).__name__}: {error}); fix the factory") from error
    from calql.envs.make import horizon_of  # here, because importing Gymnasium is slow

    if isinstance(made, Task):
        return dataclasses.replace(made, id=name)  # a later --resume finds it by this name
    if not hasattr(made, "step"):
        raise InputError(f"'{name}' made a {type(made).__name__}; it must return a gymnasium.Env or a calql.tasks.Task")
    horizon = horizon_of(made)
    made.close()
    if horizon is None:
        raise InputError(
            f"'{name}' made an environment without a time limit; wrap it in gymnasium.wrappers.TimeLimit(env, STEPS), "
            "or return a calql.tasks.Task"
        )
    return Task(
        id=name,
        env=name,
        horizon=horizon,
        scales=dict.fromkeys(SCALES, A_MACHINE),
        summary="a user's own environment",
    )

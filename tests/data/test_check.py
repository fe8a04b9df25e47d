"""`calql data info` and `check`: measures with known answers, and every error and warning."""

import dataclasses
import json

import numpy as np
import pytest
from gymnasium import spaces
from recordings import TASK, an_episode

from calql.data import Episodes
from calql.data.check.describe import check, describe
from calql.rewards import Rewards
from calql.types import Episode


def behaviour(noise=0.0, policy=np.sin, episodes=40, steps=25, wins=0.5, seed=0, spread=0.0):
    """a = clip(policy(s) + noise) on a drifting one-dimensional state; a share of the episodes succeeds at the end."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(episodes):
        states = (np.linspace(0.0, 3.0, steps + 1) + spread * rng.normal())[:, None]
        actions = np.clip(policy(states[:-1]) + noise * rng.normal(size=(steps, 1)), -1, 1)
        success = np.arange(steps) == (steps - 1 if number < wins * episodes else steps)
        made.append(Episode(states, actions, success - 1.0, success, not success.any(), success))
    return Episodes(tuple(made), "toy")


class Env:
    """Spaces and nothing else."""

    def __init__(self, observations, actions):
        self.observation_space, self.action_space, self.unwrapped = observations, actions, self


def box(*shape, low=-1.0, high=1.0, dtype=np.float32):
    return spaces.Box(low, high, shape, dtype)


# -- measures ----------------------------------------------------------------------------------------------------------


def test_a_function_of_the_state_is_narrow():
    facts = describe(behaviour(), TASK)
    assert facts["action_noise"] < 0.01
    assert facts["behaviour_spread"] < 0.05


def test_uniform_actions_are_wide():
    rng = np.random.default_rng(1)
    data = behaviour(policy=lambda s: rng.uniform(-1, 1, s.shape))
    facts = describe(data, TASK)
    assert facts["action_noise"] == pytest.approx(1.0, abs=0.1)
    assert facts["behaviour_spread"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_gaussian_noise_is_measured(noise):
    facts = describe(behaviour(noise, policy=lambda s: 0.0 * s), TASK)
    assert facts["behaviour_spread"] == pytest.approx(noise * np.sqrt(3), rel=0.1)
    assert facts["action_noise"] > 0.9  # independent of the state, and yet narrow


def test_measures_have_no_units():
    data = behaviour(0.1, spread=0.3)
    scaled = Episodes(tuple(e._replace(observations=1000 * e.observations + 5) for e in data.episodes))
    one, other = describe(data, TASK), describe(scaled, TASK)
    for name in ("action_noise", "behaviour_spread", "start_spread", "effective_dimension"):
        assert one[name] == pytest.approx(other[name], rel=1e-3)


def test_start_spread_and_effective_dimension():
    assert describe(behaviour(), TASK)["start_spread"] == pytest.approx(0.0, abs=1e-6)
    assert describe(behaviour(spread=50.0), TASK)["start_spread"] == pytest.approx(1.0, abs=0.1)
    episodes = tuple(an_episode(50, dims=(3, 1), seed=i) for i in range(20))
    assert describe(Episodes(episodes), TASK)["effective_dimension"] == pytest.approx(3.0, abs=0.1)
    copies = tuple(e._replace(observations=e.observations[:, [0, 0, 0]]) for e in episodes)
    assert describe(Episodes(copies), TASK)["effective_dimension"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("episodes", [(an_episode(1),), (an_episode(9),), (an_episode(1), an_episode(1, seed=1))])
def test_tiny_and_constant_data_have_measures_too(episodes):
    constant = tuple(e._replace(observations=0 * e.observations, actions=0 * e.actions) for e in episodes)
    for data in (episodes, constant):
        facts = describe(Episodes(data), TASK)
        assert np.isfinite([facts["action_noise"], facts["behaviour_spread"], facts["effective_dimension"]]).all()


def test_facts_by_hand():
    data = Episodes(
        (an_episode(4, terminated=True, success=[3]), an_episode(2), an_episode(2, seed=1)), "npz:x.npz", ("a note",)
    )
    facts = describe(data, TASK, discount=0.5, target_rate=0.1)
    assert (facts["episodes"], facts["transitions"]) == (3, 8)
    assert facts["length"] == {"min": 2, "q10": 2, "median": 2, "q90": pytest.approx(3.6), "max": 4}
    assert facts["success"] == pytest.approx(1 / 3)
    assert facts["success_from"] == "the recorded signal"
    assert facts["failures"] == pytest.approx(2 / 3)
    assert facts["failure_return"] == -10.0
    assert facts["return_start"]["max"] == pytest.approx(-5 - 2.5 - 1.25 + 0.625)
    assert facts["return_floor"] == 4 / 8
    assert facts["return_spread"] == pytest.approx((5.0 + 10.0) / 10.0)  # from the failures to the last step
    assert (facts["terminated"], facts["truncated"], facts["terminal_steps"]) == (1, 2, 1)
    assert facts["updates_to_converge"] == round((4 + 6 + 6) / 3 / 0.1, -2)
    assert facts["arrays"]["actions"]["shape"] == [1]
    assert facts["notes"] == ["a note"]
    json.dumps(facts, allow_nan=False)


def test_actions_at_the_bounds_are_counted_by_step():
    actions = np.array([[0.9, 0.2], [1.0, 0.0], [0.1, -0.9995], [0.998, 0.0]], np.float32)
    facts = check(Episodes((an_episode(4)._replace(actions=actions),)), TASK).facts
    assert facts["actions_at_bounds"] == 0.5
    assert (
        "bounds   50% of the actions are at ±1"
        in check(Episodes((an_episode(4)._replace(actions=actions),)), TASK).text()
    )


def test_leftovers_of_relabelled_recordings_do_not_drown_the_rest():
    walk, leftovers = an_episode(9), [an_episode(1, terminated=True, success=[0], seed=i) for i in range(50)]
    facts = describe(Episodes((walk, *leftovers)), TASK)
    assert (facts["episodes"], facts["single_step"], facts["length"]["min"]) == (51, 50, 9)
    assert (facts["success"], facts["failures"]) == (0.0, 1.0)
    assert "50 one-step episodes" in check(Episodes((walk, *leftovers)), TASK).text()
    assert describe(Episodes(tuple(leftovers)), TASK)["success"] == 1.0


def test_success_is_told_by_the_rewards_where_it_was_not_recorded():
    data = Episodes((an_episode(3, success=[2], record=False), an_episode(3, record=False)))
    facts = describe(data, TASK)
    assert facts["success"] == 0.5
    assert facts["success_from"] == "the rewards"


def test_images_are_described():
    data = Episodes(tuple(an_episode(5, keys=True, seed=i) for i in range(4)))
    facts = describe(data, TASK)
    assert facts["arrays"]["observations/image"]["dtype"] == "uint8"
    assert facts["arrays"]["observations/state/arm"]["shape"] == [2]
    assert check(data, TASK).errors == ()


# -- expectations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (behaviour(0.1), "calibration matters"),
        (behaviour(0.1, wins=1.0), "near-expert"),
        (behaviour(5.0), "matters less than on narrow data"),
        (behaviour(0.42, policy=lambda s: 0 * s), "neither narrow nor wide"),
        (behaviour(0.1, wins=0.0), "all returns are similar"),
        (behaviour(0.1, wins=0.2), "of the returns lie at the floor"),
        (behaviour(0.1, wins=0.025), "with good and bad episodes"),  # one of forty: the returns are not similar
        (behaviour(0.1, episodes=7), "no sign: fewer than 8 episodes or 200 transitions"),
        (behaviour(5.0, episodes=10, steps=19), "no sign: fewer than 8 episodes or 200 transitions"),
        (behaviour(0.1, episodes=2, steps=3, wins=1.0), "no sign"),
        (behaviour(0.1, episodes=1, wins=0.0), "all returns are similar"),  # which is true of any number
    ],
)
def test_expectations(data, expected):
    report = check(data, TASK)
    assert expected in report.expectation
    assert "An expectation, not a promise" in report.expectation
    assert report.expectation in report.text()


# -- problems ----------------------------------------------------------------------------------------------------------


def test_sound_data_have_no_problems():
    report = check(behaviour(0.1, steps=20), TASK, Env(box(1, low=-np.inf, high=np.inf), box(1)))
    assert (report.errors, report.warnings) == ((), ())
    for part in ("toy", "40 episodes, 800 transitions", "50.0% of the episodes", "-500", "behaviour spread", "critic"):
        assert part in report.text()


NESTED = spaces.Dict(image=box(4, 4, 3, low=0, high=255, dtype=np.uint8), state=spaces.Dict(arm=box(2), hand=box(1)))


@pytest.mark.parametrize(
    ("episode", "env", "messages"),
    [
        (an_episode(), Env(box(2), box(1)), []),
        (an_episode(keys=True), Env(NESTED, box(1)), []),
        (an_episode(), Env(box(3), box(1)), ["observations are (2,), the environment's are (3,)"]),
        (an_episode(), Env(box(2), box(4)), ["actions are (1,), the environment's (4,)"]),
        (an_episode(), Env(box(3), box(4)), ["observations", "actions"]),
        (an_episode(), Env(spaces.Dict(a=box(2)), box(1)), ["observations are (2,), the environment's are a (2,)"]),
        (
            an_episode(keys=True),
            Env(spaces.Dict(NESTED.spaces | {"goal": box(2)}), box(1)),
            ["image (4, 4, 3) uint8, state/arm (2,), state/hand (1,), the environment's are goal (2,), image"],
        ),
        (an_episode(), Env(box(2, low=0, high=255, dtype=np.uint8), box(1)), ["environment's are (2,) uint8"]),
        (an_episode(), Env(box(2), spaces.Discrete(3)), ["only continuous actions"]),
    ],
)
def test_data_must_fit_the_environment(episode, env, messages):
    report = check(Episodes((episode,)), TASK, env)
    text = " ".join(report.errors)
    assert bool(report.errors) == bool(messages)
    for message in messages:
        assert message in text
    assert all(f"ERROR    {error}" in report.text() and "\n" not in error for error in report.errors)


def with_actions(values):
    return Episodes((an_episode(len(values))._replace(actions=np.array(values)[:, None]),))


def test_actions_a_little_outside_are_clipped_with_a_warning():
    env = Env(box(2), box(1))
    report = check(with_actions([1.2] + [0.0] * 9), TASK, env, action_unit="env")
    assert not report.errors
    assert (
        "10.0% of the action entries lie outside [−1, 1] (up to 1.2); they are clipped to ±0.99999" in report.warnings
    )


@pytest.mark.parametrize("values", [[2.0] * 3 + [0.0] * 7, [30.0] + [0.0] * 9])
def test_actions_in_another_unit_are_refused(values):
    report = check(with_actions(values), TASK, Env(box(2), box(1)))
    assert "outside the bounds [−1, 1] of the environment" in report.errors[0]
    assert any("only the environment tells" in warning for warning in check(with_actions(values), TASK).warnings)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            behaviour(steps=25),
            {},
            "100% of the episodes are longer than the task's horizon of 20 steps (the longest has 25)",
        ),
        (
            Episodes((an_episode(),)),
            {"rewards": Rewards(low=0.0, high=1.0)},
            "rewards lie in [-1, -1], the task pays [0, 1]",
        ),
        (Episodes((an_episode(),)), {}, "all rewards are equal"),
        (Episodes((an_episode(success=[1])._replace(successes=np.zeros(3)),)), {}, "no episode succeeds"),
        (Episodes((an_episode(success=[1]),)), {"stop_at_success": True}, "1 episodes continue after a success"),
        (
            Episodes((an_episode(success=[1])._replace(observations=np.full((4, 2), 500.0)),)),
            {},
            "'observations' reaches 500",
        ),
    ],
)
def test_oddities_are_warned_of(data, changes, message):
    report = check(data, dataclasses.replace(TASK, **changes))
    assert not report.errors
    assert message in " ".join(report.warnings)
    assert "\n" not in "".join(report.warnings)


def test_tasks_without_a_failure_rule():
    report = check(behaviour(0.1), dataclasses.replace(TASK, rewards=dataclasses.replace(TASK.rewards, failing=None)))
    assert report.facts["failure_return"] is None
    assert report.facts["failures"] == 0.0
    assert "no failure rule" in report.text()


def test_what_a_task_does_not_state_is_not_judged():
    """No range: no warning of one, no floor, no success by rewards; and nothing of it is invented."""
    silent = Episodes(tuple(e._replace(rewards=7.0 * e.rewards, successes=None) for e in behaviour(0.1).episodes))
    report = check(silent, dataclasses.replace(TASK, rewards=Rewards()))
    assert (report.facts["success"], report.facts["return_bounds"], report.facts["return_floor"]) == (None, None, 0.0)
    assert not [w for w in report.warnings if "rewards lie" in w or "succeeds" in w]
    assert "success  unknown" in report.text()
    assert "not stated" in report.text()

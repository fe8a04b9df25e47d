"""Every public recording of every task: files in the formats of D4RL, Minari and AWAC, loaded as the row says."""

import inspect

import numpy as np
import pytest
from gymnasium import spaces
from recordings import NESTED, an_episode, cloned, demonstration, rows_of, store, write_awac, write_hdf5

from calql.cli import main
from calql.data.load import load_for
from calql.data.transitions import to_transitions
from calql.paper.envs.kitchen import goal_vector, is_solved
from calql.paper.tasks import TASKS
from calql.tasks import load_attribute
from calql.types import Episode, InputError

ANTMAZE = [name for name in TASKS if name.startswith("antmaze")]
KITCHEN = [name for name in TASKS if name.startswith("kitchen")]
FLAT29 = spaces.Box(-np.inf, np.inf, (29,), np.float32)
HANDS = {"pen": (45, 24), "door": (39, 28), "relocate": (39, 30)}
SETS = [(task, source) for task in TASKS.values() for source in task.sources]
MINARI = [(task, source) for task, source in SETS if source.pattern.startswith("minari:")]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Data sets of this test only, and no network."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def named(pattern):
    """A reference that the pattern covers."""
    return pattern.replace("*", "human-v2" if pattern.endswith("/*") else "v1")


def flat_file(path, episodes, timeouts=True):
    """The reference of a file in D4RL's layout."""
    return f"d4rl:{write_hdf5(path, rows_of(episodes, timeouts))}"


def official(rows, discount, scale=1.0, bias=0.0, failure=None, most_steps=None):
    """(observation, action, mapped reward, next observation, terminal, G) of every transition, as Cal-QL's loader.

    Written from the rules of `nakamotoo/Cal-QL:JaxCQL/replay_buffer.py` (commit c510025): rows are walked in order; a
    time-out row (without `timeouts`: row number `most_steps` of its episode) ends an episode and is no transition, a
    terminal row ends one and is; the file's last row is none. Kitchen values what follows a cut as its last reward for
    ever; the sparse tasks value a whole episode of failures as failing for ever.
    """
    found, episode = [], []
    for i in range(len(rows["rewards"])):
        over = rows["timeouts"][i] if "timeouts" in rows else len(episode) == most_steps - 1
        if not over and i < len(rows["rewards"]) - 1:
            reward = scale * rows["rewards"][i] + bias
            states = rows["observations"][i], rows["observations"][i + 1]
            episode.append((states[0], rows["actions"][i], reward, states[1], rows["terminals"][i]))
        if (over or rows["terminals"][i]) and episode:
            rewards = [step[2] for step in episode]
            value = rewards[-1] / (1 - discount) if failure is None else 0.0
            backwards = []
            for step in episode[::-1]:
                value = step[2] + discount * value * (1 - step[4])
                backwards.append(value)
            if failure is not None and all(reward == failure for reward in rewards):
                backwards = [failure / (1 - discount)] * len(episode)
            found += [(*step, g) for step, g in zip(episode, backwards[::-1], strict=True)]
            episode = []
    return [np.array(column, np.float32) for column in zip(*found, strict=True)]


def same_transitions(flat, expected, rows=slice(None)):
    """Equal in everything but the state behind a terminal, which counts for nothing."""
    observations, actions, rewards, following, terminals, returns = expected
    alive = terminals == 0
    np.testing.assert_array_equal(flat.observations[rows], observations)
    np.testing.assert_allclose(flat.actions[rows], actions, atol=1e-4)
    np.testing.assert_allclose(flat.rewards[rows], rewards, rtol=1e-6)
    np.testing.assert_array_equal(flat.next_observations[rows][alive], following[alive])
    np.testing.assert_array_equal(flat.masks[rows], alive)
    np.testing.assert_allclose(flat.returns[rows], returns, rtol=1e-4)


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "source"), SETS, ids=lambda x: getattr(x, "id", None) or x.pattern)
def test_every_source_names_what_exists(task, source):
    reference = named(source.pattern)
    assert task.source_of(reference) is source
    paired = task.for_data(reference)
    assert paired.env_options == {**task.env_options, **source.env_options}
    inspect.signature(load_attribute(task.env)).bind(render_mode=None, **paired.env_options)
    if source.adapt:
        inspect.signature(load_attribute(source.adapt)).bind(an_episode(), **paired.env_options)


@pytest.mark.parametrize(("task", "source"), MINARI, ids=lambda x: getattr(x, "id", None) or x.pattern)
def test_published_sets_of_other_tasks_are_refused(task, source, capfd):
    reference = named(source.pattern)
    for other in TASKS.values():
        if all(s.pattern != source.pattern for s in other.sources):
            with pytest.raises(InputError, match="does not belong to task"):
                load_for(other, reference)
    other = next(t for t in TASKS if t.split("-")[0] != task.id.split("-")[0])
    for command in (["data", "info", reference, "--task", other], ["train", "--task", other, "--data", reference]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        said = capfd.readouterr().err.strip()
        assert stop.value.code == 2
        assert said.startswith(f"calql: '{reference}' does not belong to task '{other}'; its published sets are:")
        assert len(said.splitlines()) == 1


# -- AntMaze -----------------------------------------------------------------------------------------------------------


def ant_rows(tmp_path, seed=0):
    """Two recorded episodes as D4RL relabelled them: one passes the goal and walks on, one never comes near."""
    passing = an_episode(12, dims=(29, 8), seed=seed)
    reached = np.isin(np.arange(12), [5, 6, 7])
    passing = passing._replace(rewards=reached.astype(np.float32), terminations=reached)
    failing = an_episode(6, dims=(29, 8), seed=seed + 1)._replace(rewards=np.zeros(6, np.float32))
    return flat_file(tmp_path / "ant.hdf5", [passing, failing]), passing, failing


@pytest.mark.parametrize("name", ANTMAZE)
def test_d4rl_antmaze(tmp_path, name):
    reference, *_ = ant_rows(tmp_path)
    task = TASKS[name]
    data = load_for(task, reference)
    assert [e.length for e in data.episodes] == [6, 1, 1, 4, 6]
    assert [e.truncated for e in data.episodes] == [False, False, False, True, True]
    flat = to_transitions(data.episodes, task.rewards, 0.99)
    assert flat.masks.tolist() == [1] * 5 + [0] * 3 + [1] * 10  # time-outs are no terminals
    np.testing.assert_allclose(flat.rewards, [-5] * 5 + [5] * 3 + [-5] * 10)
    way = [505 * 0.99**left - 500 for left in (5, 4, 3, 2, 1)]
    np.testing.assert_allclose(flat.returns, [*way, 5, 5, 5, *[-500] * 10], rtol=1e-5)


def test_d4rl_antmaze_equals_the_official_loader(tmp_path):
    reference, *episodes = ant_rows(tmp_path)
    rows = rows_of(episodes)
    task = TASKS[ANTMAZE[0]]
    expected = official(rows, 0.99, scale=10.0, bias=-5.0, failure=-5.0)
    same_transitions(to_transitions(load_for(task, reference).episodes, task.rewards, 0.99), expected)


@pytest.mark.parametrize("name", [name for name in ANTMAZE if "narrow" not in name])
def test_minari_antmaze(tmp_path, name):
    """Dicts become 29 entries, rewards are paid for the task's goal, and the set brings its physics with it."""
    task = TASKS[name]
    reference = named(task.sources[0].pattern)
    paired = task.for_data(reference)
    env = load_attribute(task.env)(**paired.env_options)
    goal = env.maze.cell_center(env.maze.goal)
    rng = np.random.default_rng(0)
    body, at = rng.normal(size=(10, 27)), np.tile(env.maze.cell_center(env.maze.start), (10, 1))
    at[5:8] = goal + 0.1
    states = {"observation": body, "achieved_goal": at, "desired_goal": rng.normal(size=(10, 2))}
    episode = Episode(states, rng.uniform(-1, 1, (9, 8)), rng.integers(0, 2, 9), np.zeros(9, bool), True)
    box = {key: spaces.Box(-np.inf, np.inf, x.shape[1:], np.float64) for key, x in states.items()}
    store(reference.removeprefix("minari:"), [episode], spaces.Dict(box), infos=False)
    data = load_for(task, reference)
    assert paired.env_options["physics"] == "gymnasium"
    assert [e.length for e in data.episodes] == [5, 1, 1, 2]
    first = data.episodes[0].observations
    np.testing.assert_array_equal(first, np.concatenate([at, body], axis=1).astype(np.float32)[:6])
    flat = to_transitions(data.episodes, task.rewards, 0.99)
    assert flat.observations.shape == (9, 29)
    assert flat.masks.tolist() == [1] * 4 + [0] * 3 + [1] * 2
    np.testing.assert_allclose(flat.returns[-5:], [5, 5, 5, -500, -500], rtol=1e-6)
    assert "calql.paper.envs.antmaze:from_gymnasium_robotics" in data.notes[0]


# -- kitchen -----------------------------------------------------------------------------------------------------------


def demonstrations(lengths, ends=True):
    """Kitchen episodes whose rewards are the number of subtasks solved at each step: some are undone, some are not."""
    made = []
    for number, steps in enumerate(lengths):
        episode = an_episode(steps, dims=(60, 9), seed=number, terminated=ends, record=False)
        made.append(episode._replace(rewards=np.random.default_rng(number).integers(0, 5, steps).astype(np.float32)))
    return made


@pytest.mark.parametrize("name", KITCHEN)
@pytest.mark.parametrize("tail", [False, True])
def test_d4rl_kitchen_equals_the_official_loader(tmp_path, name, tail):
    """No `timeouts`: terminals end the demonstrations. At the horizon of 1000 that the paper's environment has, the
    loader's own clock never strikes, so that its transitions are ours, but for the file's very last row: it drops that
    one, and so values what precedes it as its last reward for ever, where we keep the terminal. The tail of r / (1 − γ)
    shows nowhere else, because a terminal is the end of every demonstration; so `tail_bootstrap` changes none of ours.
    """
    task = TASKS[name]
    lengths, steps = [7, 3, 5], 10
    episodes = demonstrations(lengths)
    rows = rows_of(episodes, timeouts=False)
    data = load_for(task, flat_file(tmp_path / "kitchen.hdf5", episodes, timeouts=False))
    assert [e.length for e in data.episodes] == lengths
    assert "there is no array 'timeouts'" in data.notes[0]
    flat = to_transitions(data.episodes, task.rewards, 0.99, tail_bootstrap=tail)
    np.testing.assert_array_equal(flat.rewards, rows["rewards"])  # 0 … 4, as recorded
    assert flat.masks.sum() == sum(lengths) - 3
    expected = official(rows, 0.99, most_steps=1000)
    same_transitions(flat, [column[:steps] for column in expected], slice(steps))
    theirs, ours = expected[-1][steps:], flat.returns[steps:]
    assert len(theirs) == len(ours) - 1
    forever = 0.99 ** np.arange(4, 0, -1) * (rows["rewards"][13] / 0.01 - rows["rewards"][14])
    np.testing.assert_allclose(theirs - ours[:-1], forever, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", KITCHEN)
def test_an_episode_cut_by_the_clock_has_a_tail(tmp_path, name):
    """Online episodes, and recordings without terminals: what has been reached lasts, if `tail_bootstrap` says so."""
    task = TASKS[name]
    data = load_for(task, flat_file(tmp_path / "kitchen.hdf5", demonstrations([4], ends=False)))
    rewards = data.episodes[0].rewards
    plain, tail = (to_transitions(data.episodes, task.rewards, 0.99, tail_bootstrap=on).returns for on in (False, True))
    np.testing.assert_allclose(plain[-1], rewards[-1])
    np.testing.assert_allclose(tail[-1], rewards[-1] / 0.01, rtol=1e-5)


@pytest.mark.parametrize("name", KITCHEN)
def test_minari_kitchen(name):
    """59 entries and dicts of goals become D4RL's 60; rewards stay as recorded."""
    task = TASKS[name]
    goal = goal_vector(task.env_options["tasks"])
    states = np.random.default_rng(0).normal(size=(5, 59))
    states[3:, 18:39] = goal[9:]  # all subtasks solved at the last two states
    episode = Episode({"observation": states}, np.zeros((4, 9)), np.array([0, 1, 4, 3.0]), np.zeros(4, bool), True)
    space = spaces.Dict(observation=spaces.Box(-np.inf, np.inf, (59,), np.float64))
    reference = named(task.sources[0].pattern)
    store(reference.removeprefix("minari:"), [episode], space, infos=False)
    found = load_for(task, reference).episodes[0]
    joints = np.concatenate([states[:, :9], states[:, 18:39]], axis=1)
    np.testing.assert_array_equal(found.observations[:, :30], joints.astype(np.float32))
    np.testing.assert_array_equal(found.observations[:, 30:], np.tile(goal.astype(np.float32), (5, 1)))
    assert found.rewards.tolist() == [0, 1, 4, 3]
    assert found.successes.tolist() == [all(is_solved(n, x) for n in task.env_options["tasks"]) for x in joints[1:]]
    assert found.successes.tolist()[2:] == [True, True]
    assert found.truncated


# -- Adroit ------------------------------------------------------------------------------------------------------------


def door_opens(steps, at, seed=0):
    """A door recording with dense rewards: the hinge stands open after the steps `at`."""
    episode = an_episode(steps, dims=HANDS["door"], seed=seed, record=False)
    observations = episode.observations.copy()
    observations[:, 28] = 0.0
    observations[np.array(at, int) + 1, 28] = 1.4
    return episode._replace(observations=observations, rewards=np.random.default_rng(seed).normal(size=steps))


@pytest.mark.parametrize("how", ["minari", "d4rl"])
def test_dense_rewards_of_the_hands_become_binary(tmp_path, how):
    """Minari's and D4RL's recordings: success − 1, and an end at the first success; failures are kept."""
    task = TASKS["door-binary"]
    recorded = [door_opens(8, at=[4, 5, 7]), door_opens(6, at=[], seed=1)]
    if how == "minari":
        reference = "minari:D4RL/door/human-v2"
        store("D4RL/door/human-v2", recorded, spaces.Box(-np.inf, np.inf, (39,), np.float32), infos=False)
    else:
        reference = flat_file(tmp_path / "door.hdf5", recorded)
    data = load_for(task, reference)
    assert [e.rewards.tolist() for e in data.episodes] == [[-1, -1, -1, -1, 0], [-1] * 6]
    assert [e.terminations.tolist() for e in data.episodes] == [[False] * 4 + [True], [False] * 6]
    assert data.episodes[0].successes.tolist() == [False] * 4 + [True]
    returns = to_transitions(data.episodes, task.rewards, 0.99).returns
    np.testing.assert_allclose(returns, [505 * 0.99**k - 500 for k in (4, 3, 2, 1, 0)] + [-500] * 6, rtol=1e-5)
    assert any("calql.paper.envs.adroit:relabel" in note for note in data.notes)
    assert "after their first success" in data.notes[-1]


@pytest.mark.parametrize("hand", HANDS)
def test_recordings_of_another_hand_are_refused(tmp_path, hand):
    recorded = [an_episode(4, dims=HANDS["door" if hand == "pen" else "pen"])]
    reference = flat_file(tmp_path / "hand.hdf5", recorded)
    with pytest.raises(InputError, match=r"hand.hdf5: episode 0: .*not the \w+ task's") as caught:
        load_for(TASKS[f"{hand}-binary"], reference)
    assert "\n" not in str(caught.value)


def test_dicts_where_arrays_are_expected_are_refused():
    store("D4RL/door/human-v2", [an_episode(3, keys=True)], NESTED, infos=False)
    with pytest.raises(InputError, match="minari:D4RL/door/human-v2: episode 0") as caught:
        load_for(TASKS["door-binary"], "minari:D4RL/door/human-v2")
    assert "\n" not in str(caught.value)
    store("D4RL/antmaze/large-play-v1", [an_episode(3, dims=(29, 8))], FLAT29, infos=False)
    with pytest.raises(InputError, match="episode 0: this is not an AntMaze v4 episode"):
        load_for(TASKS["antmaze-large-play"], "minari:D4RL/antmaze/large-play-v1")


@pytest.mark.parametrize("hand", HANDS)
def test_awac(tmp_path, hand):
    """Cut after the last success, every success terminal, failures discarded; and not cut again at the first one."""
    task = TASKS[f"{hand}-binary"]
    dims = HANDS[hand]
    human = an_episode(9, dims=dims, success=[3, 4, 6])
    weak = [an_episode(7, dims=dims, seed=1), an_episode(5, dims=dims, success=[4], seed=2)]
    write_awac(tmp_path, f"{hand}2_sparse.npy", [demonstration(human)])  # with one reward too many
    write_awac(tmp_path, f"{hand}_bc_sparse4.npy", [cloned(e) for e in weak])
    other = "door" if hand == "pen" else "pen"
    write_awac(tmp_path, f"{other}2_sparse.npy", [demonstration(an_episode(3, dims=HANDS[other], success=[1]))])
    data = load_for(task, f"awac:{tmp_path}")  # the task says which files of the folder are meant
    assert [e.length for e in data.episodes] == [7, 5]
    flat = to_transitions(data.episodes, task.rewards, 0.99)
    wins = np.isin(np.arange(12), [3, 4, 6, 11])
    np.testing.assert_array_equal(flat.masks, ~wins)
    np.testing.assert_allclose(flat.rewards, np.where(wins, 5.0, -5.0))
    ways = [505 * 0.99**k - 500 for k in (3, 2, 1, 0, 0, 1, 0, 4, 3, 2, 1, 0)]
    np.testing.assert_allclose(flat.returns, ways, rtol=1e-5)
    assert "(1 episodes without success and 9 transitions in all were dropped)" in data.notes[-1]
    assert load_for(task, f"awac:{tmp_path}#{hand}").fingerprint() == data.fingerprint()
    with pytest.raises(InputError, match=rf"names '{other}', but '{hand}' is wanted"):
        load_for(task, f"awac:{tmp_path}#{other}")


# -- what `calql data` says --------------------------------------------------------------------------------------------


def said_of(capfd, *command):
    with pytest.raises(SystemExit) as stop:
        main(["data", *command])
    return stop.value.code, capfd.readouterr().out


def test_info_says_what_the_row_does(tmp_path, capfd):
    reference, *_ = ant_rows(tmp_path)
    code, said = said_of(capfd, "info", reference, "--task", "antmaze-medium-play")
    assert code == 0
    for line in (
        "rewards are mapped to 10 r − 5: -5 to 5",
        "failure rule: if every step of an episode pays -5 until it is cut, each return is -500",
        "its episodes end when the environment ends them (terminated), or after 1000 steps (cut)",
        "its score is 1 if any step succeeds, else 0",
        "calql.paper.envs.antmaze:make(maze='medium'",
        "0.0% of the episodes are longer than the horizon",
        "rows at the ends of cut episodes gave only the last observation",
    ):
        assert line in said

    flat_file(tmp_path / "kitchen.hdf5", demonstrations([300], ends=False))
    code, said = said_of(capfd, "info", f"d4rl:{tmp_path}/kitchen.hdf5", "--task", "kitchen-mixed")
    assert code == 0
    for line in (
        "rewards are mapped to 0.25 r − 1: -1 to 0",
        "no failure rule",
        "its score is last reward / 4",
        "'bottom burner'",
        "truncated episodes count as if the last reward continued for ever",
        "100.0% of the episodes are longer than the horizon",
    ):
        assert line in said

    flat_file(tmp_path / "door.hdf5", [door_opens(6, at=[2])])
    code, said = said_of(capfd, "info", f"d4rl:{tmp_path}/door.hdf5", "--task", "door-binary")
    assert code == 0
    for line in (
        "rewards are mapped to 10 r + 5: -5 to 5",
        "its episodes end at the first success (terminated), or after 200 steps (cut)",
        "all 1 recorded episodes were adapted by calql.paper.envs.adroit:relabel",
        "episodes were cut after their first success",
    ):
        assert line in said


def test_check_refuses_another_physics(tmp_path, capfd):
    """The same maze and the same numbers, recorded in Gymnasium-Robotics' physics and offered as D4RL's."""
    task = TASKS["antmaze-medium-play"]
    for physics, code in (("d4rl", 0), ("gymnasium", 2)):
        env = load_attribute(task.env)(**{**task.env_options, "physics": physics})
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (15, 8)).repeat(4, axis=0).astype(np.float32)
        states = np.array([env.reset(seed=0)[0], *(env.step(action)[0] for action in actions)])
        episode = Episode(states, actions, np.zeros(60, np.float32), np.zeros(60, bool), True)
        reference = flat_file(tmp_path / f"{physics}.hdf5", [episode])
        found, said = said_of(capfd, "check", reference, "--task", task.id)
        assert found == code
        assert ("ERROR    the data were recorded in other physics than this environment's" in said) == (code == 2)
        assert "repeated in it, deviate by" in said
    with pytest.raises(SystemExit) as stop:
        main(["train", "--task", task.id, "--data", reference, "--scale", "smoke", "--out", str(tmp_path / "run")])
    line = capfd.readouterr().err.strip()
    assert stop.value.code == 2
    assert "pair the data with the physics they were recorded in (minari:D4RL/antmaze/medium-play-* has" in line
    assert len(line.splitlines()) == 1

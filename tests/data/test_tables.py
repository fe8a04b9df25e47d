"""CSV and Parquet: what the names of columns mean, and what is refused; the names that arrays may have."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import png

from calql.data import load
from calql.data.readers.names import SYNONYMS, meaning
from calql.types import InputError

HEADER = "episode,observation.x,observation.y,action.a,reward,terminated"
LINES = ["0,1,2,0.5,0,False", "0,3,4,0.5,1,True", "1,5,6,0.5,0,False", "1,7,8,0.5,1,True"]


def csv(folder, header=HEADER, lines=LINES, name="log.csv"):
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return f"csv:{folder}/{name}"


def observations(uri):
    return [episode.observations.tolist() for episode in load(uri).episodes]


def test_a_log_of_pandas(tmp_path):
    """With its nameless index, words for booleans, empty cells in a column that is not used, and a BOM."""
    lines = [f"{row},{line},{'' if row else 'ok'}" for row, line in enumerate(LINES)]
    csv(tmp_path, f"\ufeff,{HEADER},comment", lines)
    data = load(f"csv:{tmp_path}/log.csv")
    assert [e.rewards.tolist() for e in data.episodes] == [[0, 1], [0, 1]]
    assert [e.observations[:2].tolist() for e in data.episodes] == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert not any(e.truncated for e in data.episodes)
    assert data.notes == (
        "observations are [observation.x, observation.y]",
        "not used: (a column without name), comment",
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    uri = csv(tmp_path, HEADER.replace(",", separator), [line.replace(",", separator) for line in LINES])
    assert load(uri).num_episodes == 2


def test_numbered_columns_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"obs_{k}" for k in (0, 1, 10, 11, *range(2, 10))]
    uri = csv(tmp_path, ",".join([*names, "action_0", "reward", "terminated"]), ["0,1,10,11,2,3,4,5,6,7,8,9,0,0,1"])
    assert observations(uri)[0][0] == list(range(12))


@pytest.mark.parametrize("form", ["observation.{}", "observation/{}", "observations[{}]", "obs.{}"])
def test_spellings(tmp_path, form):
    uri = csv(tmp_path, ",".join([form.format("b"), form.format("a"), "action", "reward", "terminated"]), ["1,2,0,0,1"])
    assert observations(uri)[0][0] == [1, 2]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ("action.left,action.arm.right", ("left", "arm.right")),
        ("action/left,action/right", ("left", "right")),
        ("action_0,action_1", None),
        ("action[0],action[1]", None),
    ],
)
def test_the_columns_name_the_actions(tmp_path, columns, names):
    (tmp_path / "log.csv").write_text(f"obs_0,{columns},reward,terminated\n0,0,1,0,0\n1,0,1,0,1\n")
    assert load(f"csv:{tmp_path}/log.csv").action_names == names


def test_nested_names_are_dicts(tmp_path):
    uri = csv(tmp_path, "obs.arm.x,obs.grip,obs.arm.y,action.l.x,action.r,reward,terminated", ["1,2,3,4,5,0,1"])
    (episode,) = load(uri).episodes
    assert {key: leaf[0].tolist() for key, leaf in episode.observations.items()} == {"arm": [1, 3], "grip": [2]}
    assert episode.actions.tolist() == [[4, 5]]


def test_next_observations_have_the_order_of_the_observations(tmp_path):
    header = "obs.x,obs.y,next_obs.y,next_obs.x,action,reward,terminated,truncated"
    uri = csv(tmp_path, header, ["1,2,4,3,0,0,0,0", "3,4,6,5,0,0,0,1"])
    assert observations(uri) == [[[1, 2], [3, 4], [5, 6]]]
    with pytest.raises(InputError, match="'next_observations' must have the parts of the observation"):
        load(csv(tmp_path, header.replace("next_obs.y", "next_obs.z"), ["1,2,4,3,0,0,0,0"]))


def test_a_folder_has_an_episode_in_every_file(tmp_path):
    header = "obs,action,reward,terminated"
    for number in (10, 2):
        csv(tmp_path, header, [f"{number},0,0,0", "0,0,0,0", "0,0,1,1"], f"run_{number}.csv")
    data = load(f"csv:{tmp_path}")
    assert [e.observations[0, 0] for e in data.episodes] == [2, 10]
    assert "2 files were read, run_2.csv to run_10.csv: no episode goes on in the next" in data.notes
    csv(tmp_path, "obs,action,reward,done", ["0,0,0,1"], "run_3.csv")
    with pytest.raises(InputError, match=r"'done' is a column of only one of run_2\.csv and run_3\.csv"):
        load(f"csv:{tmp_path}")


def test_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    csv(tmp_path)
    assert load("csv:~/log.csv").num_episodes == 2
    np.savez(tmp_path / "log.npz", observations=np.zeros((2, 1)), actions=np.zeros((2, 1)), rewards=np.zeros(2),
             terminals=np.ones(2))  # fmt: skip
    assert load("npz:~/log.npz").num_episodes == 2
    for uri in ("npz:~/x.npz", "csv:~/x.csv", "d4rl:~/x.hdf5", "parquet:~/x.parquet", "robomimic:~/x.hdf5"):
        with pytest.raises(InputError, match="there is no such file; check the path"):
            load(uri)
    with pytest.raises(InputError, match="this is a folder; give one of its files"):
        load("npz:~")
    os.mkdir(tmp_path / "empty")
    with pytest.raises(InputError, match=r"the folder holds no \.csv file"):
        load("csv:~/empty")


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        (HEADER, ["0,1,2,0.5,0"], "line 2 has 5 cells, the header 6"),
        (HEADER, ["0,1,2,0.5,much,0"], r"'reward' holds 'much' in row 0 .* no number"),
        (HEADER.replace(",", ";"), ["0;1;2;0,5;0;1"], "write decimal points"),
        (HEADER, ["0,1,,0.5,0,1"], "'observations' holds NaN or infinite values at step 0"),
        (HEADER, ["0,1,2,0.5,0,"], "'terminals' holds NaN"),
        (HEADER, [], "it has no rows"),
        ("", [], "the first line must name the columns"),
        (HEADER.replace("reward", "payment"), ["0,1,2,0.5,0,1"], r"no array 'rewards' \(found: .*payment"),
        (HEADER.replace("terminated", "over"), ["0,1,2,0.5,0,1"], r"no array 'terminals' .*over.*add it: 1 where"),
        (HEADER.replace("terminated", "done"), ["0,1,2,0.5,0,1"], "'done' does not tell whether the task ended"),
        (HEADER.replace("action.a", "torque"), ["0,1,2,0.5,0,1"], r"no array 'actions' \(found: .*torque"),
        (HEADER.replace("observation.y", "reward"), ["0,1,2,0.5,0,1"], "the column 'reward' occurs twice"),
        (HEADER.replace("episode", "next.reward"), ["0,1,2,0.5,9,1"], "'next.reward' and 'reward' mean the same"),
        ("obs_0,obs_2,action,reward,terminated", ["1,2,0,0,1"], "not numbered 0, 1, 2"),
        ("obs,obs.x,action,reward,terminated", ["1,2,0,0,1"], "'obs' is an array of its own beside 'obs.x'"),
        ("obs.a,obs.a.x,action,reward,terminated", ["1,2,0,0,1"], "'obs.a' is an array of its own beside 'obs.a.x'"),
        (HEADER, ["1,1,2,0,0,0", "2,1,2,0,0,0", "1,1,2,0,0,1"], "the rows of episode 1 are not together"),
    ],
)  # fmt: skip
def test_unsound_tables_are_refused_in_one_line(tmp_path, header, lines, message):
    with pytest.raises(InputError, match=message) as caught:
        load(csv(tmp_path, header, lines))
    assert len(str(caught.value).splitlines()) == 1


# -- Parquet -----------------------------------------------------------------------------------------------------------


def parquet(folder, **changes):
    columns = {
        "observation.state": [[1.0, 2.0], [3.0, 4.0]],
        "action": [[0.5], [0.5]],
        "reward": [0, 1],
        "terminated": [False, True],
    }
    columns = {name: value for name, value in (columns | changes).items() if value is not None}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return f"parquet:{folder}/log.parquet"


def test_lists_are_vectors(tmp_path):
    assert observations(parquet(tmp_path)) == [[[1, 2], [3, 4], [3, 4]]]
    both = load(parquet(tmp_path, **{"observation.force": [1.0, 2.0]})).episodes[0].observations
    assert {key: leaf.shape for key, leaf in both.items()} == {"state": (3, 2), "force": (3, 1)}
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    assert observations(parquet(tmp_path, **{"observation.state": fixed})) == [[[1, 2], [3, 4], [3, 4]]]
    table = pa.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert observations(parquet(tmp_path, **{"observation.state": table}))[0][0] == [[1], [2]]


def test_images_are_decoded(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    cells = [{"bytes": png(image), "path": "a.png"}, {"bytes": png(image + 1), "path": "b.png"}]
    seen = load(parquet(tmp_path, **{"observation.cam": pa.array(cells)})).episodes[0].observations["cam"]
    np.testing.assert_array_equal(seen, np.stack([image, image + 1, image + 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation.state": [[1.0], [2.0, 3.0]]}, "'observation.state' holds lists of 1 to 2 numbers"),
        ({"reward": [None, 1]}, "'reward' has 1 empty cells"),
        ({"action": [[0.5], None]}, "'action' has 1 empty cells"),
        ({"action": [[None], [0.5]]}, "'action' has 1 empty cells"),
        ({"action": [["a"], ["b"]]}, "'actions' does not hold numbers"),
        ({"observation.cam": [{"bytes": b"no"}, {"bytes": b"no"}]}, "the image of row 0 cannot be decoded"),
        ({"observation.cam": [{"bytes": None}, {"bytes": b""}]}, "the image of row 0 is not in the file"),
        ({"observation.state": None, "state": [[1.0], [2.0]]}, r"no array 'observations' \(found: .*state"),
    ],
)
def test_unsound_parquet_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        load(parquet(tmp_path, **changes))
    assert len(str(caught.value).splitlines()) == 1


# -- names -------------------------------------------------------------------------------------------------------------


def test_every_synonym_is_documented_and_means_one_thing():
    names = [name for ours, others in SYNONYMS.items() for name in (ours, *others)]
    assert len(names) == len(set(names))
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in page] == []


def test_meanings():
    assert meaning("obs/arm/x") == "observations/arm/x"
    assert meaning("next_obs") == "next_observations"
    assert meaning("infos/reward") is None
    assert meaning("rewards/left") is None


@pytest.mark.parametrize("name", ["truncations", "truncated", "timeout"])
def test_a_truncation_by_any_name_ends_its_episode(tmp_path, name):
    """Nothing is learned across a reset: the row after a truncation belongs to the next episode."""
    rows = {
        "obs": np.arange(6.0)[:, None],
        "action": np.zeros((6, 1)),
        "reward": np.zeros(6),
        "terminated": np.zeros(6),
    }
    np.savez(tmp_path / "log.npz", **rows, **{name: np.arange(6) % 3 == 2})
    assert [e.observations[:, 0].tolist() for e in load(f"npz:{tmp_path}/log.npz").episodes] == [[0, 1, 2], [3, 4, 5]]


def test_all_names_are_told_where_one_is_missing(tmp_path):
    np.savez(tmp_path / "log.npz", states=np.zeros((2, 1)), actions=np.zeros((2, 1)), rewards=np.zeros(2))
    with pytest.raises(InputError, match=r"no array 'observations' \(found: actions, rewards, states\)"):
        load(f"npz:{tmp_path}/log.npz")


# -- every fix that a message names works ------------------------------------------------------------------------------


def refused(uri):
    with pytest.raises(InputError) as caught:
        load(uri)
    return str(caught.value)


def test_done_renamed_or_with_timeouts(tmp_path):
    header, lines = (
        HEADER.replace("terminated", "done"),
        [line.replace("True", "1").replace("False", "0") for line in LINES],
    )
    assert "rename it to 'terminals' if" in refused(csv(tmp_path, header, lines))
    assert load(csv(tmp_path, header.replace("done", "terminals"), lines)).num_transitions == 4
    assert "else add 'timeouts'" in refused(csv(tmp_path, header, lines))
    cut = [f"{line},{line.startswith('1')}" for line in lines]
    cut[2] = cut[2].replace("True", "False")
    data = load(csv(tmp_path, f"{header},timeouts", cut))
    assert [e.truncated for e in data.episodes] == [False, True]


def test_missing_terminals_added(tmp_path):
    header, lines = HEADER.removesuffix(",terminated"), [line.rpartition(",")[0] for line in LINES]
    assert "add it: 1 where the task ended, 0 elsewhere" in refused(csv(tmp_path, header, lines))
    assert load(csv(tmp_path, f"{header},terminals", [f"{line},{row % 2}" for row, line in enumerate(lines)]))
    assert load(f"{csv(tmp_path, header, lines)}#success=last").num_transitions == 4


def test_missing_rewards_recorded_as_successes_or_stated(tmp_path):
    header = HEADER.replace("reward", "payment")
    assert "record them, or 'successes'; if every episode ends in success, add #success=last" in refused(
        csv(tmp_path, header)
    )
    assert load(f"csv:{tmp_path}/log.csv#success=last").episodes[0].rewards.tolist() == [0, 1]
    assert load(csv(tmp_path, header.replace("payment", "successes"))).episodes[0].rewards.tolist() == [0, 1]


def test_scattered_rows_sorted(tmp_path):
    assert "sort the rows by episode and step" in refused(csv(tmp_path, lines=[LINES[i] for i in (0, 2, 1, 3)]))
    assert load(csv(tmp_path, lines=sorted(LINES))).num_episodes == 2


def test_images_of_several_sizes_scaled(tmp_path):
    large, small = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    uri = parquet(tmp_path, **{"observation.cam": pa.array([{"bytes": png(large)}, {"bytes": png(small)}])})
    assert "scale them with #image_size=84" in refused(uri)
    assert load(f"{uri}#image_size=84").spec().observation["cam"].shape == (84, 84, 3)


def test_columns_that_contradict_each_other_left_out(tmp_path):
    header, lines = f"{HEADER},truncated", [f"{line},1" for line in LINES]
    assert "by 'truncated', but not by 'episode'; correct one of them, or leave it out" in refused(
        csv(tmp_path, header, lines)
    )
    assert load(csv(tmp_path)).num_episodes == 2

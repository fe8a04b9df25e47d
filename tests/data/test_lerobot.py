"""LeRobot's data sets: those that LeRobot itself wrote, and what is refused."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import cells, logs, write_info, write_lerobot

from calql.data import load
from calql.data.readers import frames, lerobot
from calql.types import InputError

FILES = Path(__file__).parent / "files"
LENGTHS = [5, 4, 7]


@pytest.fixture(params=["0.4.4", "0.3.3"])
def written(request, tmp_path):
    """A data set that LeRobot wrote, in the formats v3.0 and v2.1 (see files/README.md)."""
    with zipfile.ZipFile(FILES / f"lerobot-{request.param}.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_what_lerobot_wrote_is_read(written):
    data = load(f"lerobot:{written}")
    assert [episode.length for episode in data.episodes] == [5, 3, 7]
    for e, (episode, frames_) in enumerate(zip(data.episodes, LENGTHS, strict=True)):
        won = e != 1
        t = np.arange(frames_)
        state = np.stack([np.full(frames_, e), t, e * t], axis=1).astype("f4")
        seen = episode.observations
        np.testing.assert_array_equal(seen["state"][:frames_], state)
        np.testing.assert_array_equal(seen["images"]["wrist"][:frames_, -1, -1], [[5 * e, 7 * i, 9] for i in t])
        assert all((seen["images"]["wrist"][i, i, e] == 255).all() for i in t)
        top = seen["images"]["top"][:frames_].astype(int)
        assert top.shape[1:] == (16, 24, 3)
        colours = np.array([(30 * e + 20, 10 * i + 20, 128) for i in t])
        assert abs(top - colours[:, None, None]).max() <= 5  # a lossy codec; neighbours differ by 10
        commands = np.array([(e / 10, i / 10) for i in t], "f4")
        np.testing.assert_array_equal(episode.actions, commands[: episode.length])
        assert episode.terminations.tolist() == [False] * (episode.length - 1) + [won]
        assert episode.rewards.tolist() == [0] * (episode.length - 1) + [won]
        assert episode.successes.tolist() == [False] * (episode.length - 1) + [won]
        assert episode.truncated is not won
    assert (data.rate, data.action_names) == (10.0, ("a", "b"))
    told = " ".join(data.notes)
    for name in ("timestamp", "frame_index", "index", "task_index", "2 tasks", "as a cut elsewhere (1)"):
        assert name in told


def test_some_observations_alone_and_smaller(written):
    data = load(f"lerobot:{written}#keys=state")
    assert data.spec().observation.shape == (3,)
    assert any("observation.images.top" in note and "not used" in note for note in data.notes)
    data = load(f"lerobot:{written}#keys=state,images.top#image_size=8")
    assert data.spec().observation["images"]["top"].shape == (8, 8, 3)
    assert data.spec().observation["images"].keys() == {"top"}
    with pytest.raises(InputError, match=r"no observation 'arm'; there are images.top, images.wrist, state"):
        load(f"lerobot:{written}#keys=arm")
    with pytest.raises(InputError, match="no option 'size'; use success, keys, image_size"):
        load(f"lerobot:{written}#size=8")
    for wrong in ("0", "x", "-1"):
        with pytest.raises(InputError, match="image_size must be a positive whole number"):
            load(f"lerobot:{written}#image_size={wrong}")


def demonstrations(folder, **columns):
    """Two episodes of three frames."""
    values = {"observation.state": np.arange(12.0).reshape(6, 2), "action": np.zeros((6, 1))} | columns
    values |= {"episode_index": np.repeat([0, 1], 3), "frame_index": np.tile(np.arange(3), 2)}
    values = {name: np.asarray(value) for name, value in values.items() if value is not None}
    import pyarrow as pa

    (folder / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table({n: cells(v) for n, v in values.items()}), folder / "data/chunk-000/file-000.parquet")
    write_info(folder, values, total_frames=6)
    return f"lerobot:{folder}"


def test_rewards_are_never_invented(tmp_path):
    uri = demonstrations(tmp_path)
    with pytest.raises(InputError, match=r"no array 'rewards' .*add #success=last"):
        load(uri)
    data = load(f"{uri}#success=last")
    for episode in data.episodes:
        assert (episode.length, episode.truncated) == (3, False)
        assert episode.rewards.tolist() == episode.successes.tolist() == episode.terminations.tolist() == [0, 0, 1]


def test_successes_stand_in_for_rewards(tmp_path):
    data = load(demonstrations(tmp_path, **{"next.success": [False, False, True, False, False, False]}))
    assert [e.rewards.tolist() for e in data.episodes] == [[0, 0, 1], [0, 0]]
    assert [e.truncated for e in data.episodes] == [False, True]
    assert "no rewards were recorded: each recorded success pays 1, every other step 0" in data.notes
    with pytest.raises(InputError, match="the successes were recorded; leave #success=last out"):
        load(f"lerobot:{tmp_path}#success=last")


def test_done_without_success_is_terminal_and_said(tmp_path):
    data = load(demonstrations(tmp_path, **{"next.done": np.arange(6) == 5, "next.reward": np.zeros(6)}))
    assert [e.terminations.any() for e in data.episodes] == [False, True]
    assert "'next.done' does not tell terminals from cuts: it is read as terminal" in data.notes


def damage_info(folder, **changes):
    file = folder / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: damage_info(f, codebase_version="v1.6"), "it has version v1.6, known are v2.0, v2.1, v3.0"),
        (lambda f: damage_info(f, fps=0), "states no features or no frame rate"),
        (lambda f: damage_info(f, features=3), "meta/info.json is damaged"),
        (lambda f: damage_info(f, features={"../x": {}}), "LeRobot forbids / in names"),
        (lambda f: damage_info(f, total_frames=99), "it holds 16 of 99 frames; download the rest"),
        (lambda f: (f / "meta/info.json").write_text("{"), "meta/info.json is damaged"),
        (lambda f: (f / "meta/info.json").unlink(), "there is no meta/info.json"),
        (lambda f: shutil.rmtree(f / "data"), r"there is no data/\*/\*.parquet"),
        (lambda f: shutil.rmtree(f / "videos"), "the video .* is missing"),
        (lambda f: next(f.glob("videos/**/*.mp4")).write_bytes(b"no film"), "cannot be decoded"),
        (lambda f: next(f.glob("data/*/*.parquet")).write_bytes(b"PAR1"), "not a complete Parquet file"),
    ],
)
def test_damaged_sets_are_refused_in_one_line(written, damage, message):
    damage(written)
    with pytest.raises(InputError, match=message) as caught:
        load(f"lerobot:{written}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_set_without_places_of_videos_is_refused(tmp_path):
    with zipfile.ZipFile(FILES / "lerobot-0.4.4.zip") as archive:
        archive.extractall(tmp_path)
    shutil.rmtree(tmp_path / "meta/episodes")
    with pytest.raises(InputError, match=r"there is no meta/episodes/\*/\*.parquet"):
        load(f"lerobot:{tmp_path}")


def test_frames_out_of_order_are_refused(tmp_path):
    uri = demonstrations(tmp_path)
    file = tmp_path / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).take([0, 2, 1, 3, 4, 5]), file)
    with pytest.raises(InputError, match="row 1 is not the next frame of its episode"):
        load(uri)


def test_images_beyond_the_memory_are_refused_before_they_are_read(written, monkeypatch):
    monkeypatch.setattr(lerobot.os, "sysconf", lambda name: 1 if "SIZE" in name else 10_000)
    monkeypatch.setattr(frames, "decode_video", None)
    with pytest.raises(InputError, match=r"add #image_size=84, or read some of the observations alone: #keys="):
        load(f"lerobot:{written}")


@given(log=logs(), version=st.sampled_from(["v2.0", "v2.1", "v3.0"]))
@settings(deadline=None, max_examples=10, suppress_health_check=[*HealthCheck])
def test_every_version_is_read_alike(tmp_path_factory, log, version):
    def read(which):
        try:
            return load(write_lerobot(tmp_path_factory.mktemp("set"), log, which)).fingerprint()
        except InputError as error:
            return str(error).partition(": ")[2]

    assert read(version) == read("v3.0")

"""A film is of the first episode of the environment that is there: no other one, and no further reset."""

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces

from calql.envs.film import Filmed
from calql.types import InputError

IMAGE = np.zeros((16, 16, 3), np.uint8)


class Drawing(gymnasium.Env):
    """Draws what it is told to."""

    observation_space = action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, draw=lambda: IMAGE, **metadata):
        self.draw, self.resets, self.metadata = draw, 0, metadata

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self):
        return self.draw()


def rolled(env, steps):
    env.reset(seed=0)
    for _ in range(steps):
        env.step(np.zeros(1))


@pytest.mark.parametrize(("told", "fps"), [({}, 10), ({"render_fps": 25}, 25), ({"render_fps": None}, 10)])
def test_a_film_has_every_state_of_the_first_episode(tmp_path, told, fps):
    env = Filmed(Drawing(**told), tmp_path / "new" / "film.mp4")
    rolled(env, 5)
    rolled(env, 3)
    env.finish()
    assert env.unwrapped.resets == 2
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(tmp_path / "new" / "film.mp4")
    assert frames == 6
    assert seconds == pytest.approx(6 / fps, abs=0.02)


def raises():
    raise OSError


@pytest.mark.parametrize(
    ("draw", "cause"),
    [
        (lambda: None, "draws nothing"),
        (raises, "cannot be rendered: OSError; if it renders with MuJoCo"),
        (lambda: np.zeros((16, 16, 3)), r"render\(\) gives float64 \(16, 16, 3\); a video needs uint8"),
        (lambda: IMAGE[..., 0], r"gives uint8 \(16, 16\)"),
        (lambda: "text", r"gives <U4 \(\)"),
    ],
)
def test_what_cannot_be_filmed_is_named_before_anything_moves(tmp_path, draw, cause):
    env = Filmed(Drawing(draw), tmp_path / "film.mp4")
    with pytest.raises(InputError, match=cause):
        env.reset()
    env.finish()
    assert not (tmp_path / "film.mp4").exists()


def test_images_of_another_size_are_named(tmp_path):
    sizes = iter((16, 18))
    env = Filmed(Drawing(lambda: np.zeros((next(sizes), 16, 3), np.uint8)), tmp_path / "film.mp4")
    env.reset()
    with pytest.raises(InputError, match=r"gives uint8 \(18, 16, 3\).*all of one size"):
        env.step(np.zeros(1))
    env.finish()


@pytest.mark.parametrize(
    ("name", "cause"), [("film", r"FILE\.mp4"), ("film.txt", r"FILE\.mp4"), ("file/film.mp4", "choose another --video")]
)
def test_where_no_film_can_be_written(tmp_path, name, cause):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=cause):
        Filmed(Drawing(), tmp_path / name)

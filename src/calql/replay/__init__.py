"""What the learner samples from."""

from calql.replay.buffer import Replay, add_episode, make_replay, newest, put_back, sample
from calql.replay.windows import sample_windows

__all__ = ["Replay", "add_episode", "make_replay", "newest", "put_back", "sample", "sample_windows"]

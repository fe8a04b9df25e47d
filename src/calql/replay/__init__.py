"""What the learner samples from."""

from calql.replay.augment import random_crop
from calql.replay.buffer import Replay, add_episode, make_replay, newest, put_back, sample
from calql.replay.windows import sample_windows

__all__ = ["Replay", "add_episode", "make_replay", "newest", "put_back", "random_crop", "sample", "sample_windows"]

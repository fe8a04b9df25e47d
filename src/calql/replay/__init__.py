"""The replay buffer: storage, sampling of batches and windows, image augmentation."""

from calql.replay.augment import random_crop
from calql.replay.buffer import Replay, add_episode, make_replay, newest, put_back, rows_dropped, sample
from calql.replay.windows import sample_windows

__all__ = [
    "Replay",
    "add_episode",
    "make_replay",
    "newest",
    "put_back",
    "random_crop",
    "rows_dropped",
    "sample",
    "sample_windows",
]

"""What the learner samples from."""

from calql.replay.buffer import Replay, add_episode, make_replay, sample

__all__ = ["Replay", "add_episode", "make_replay", "sample"]

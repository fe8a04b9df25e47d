"""Rows of the table of tasks as records: what a file holds of one is the same row."""

import json

import msgspec
import pytest

from calql.paper.tasks import TASKS
from calql.rewards import Rewards
from calql.tasks import Source, Task

OWN = Task(
    id="own",
    env="package.module:make",
    horizon=50,
    env_options={"size": 3},
    sources=(Source("npz:*", env_options={"physics": "old"}, reader={"task": "door"}),),
    rewards=Rewards(scale=2.0, low=-1.0, failing=-1.0),
    scales={"laptop": {"discount": 0.9}},
)


@pytest.mark.parametrize("task", [*TASKS.values(), OWN], ids=lambda task: task.id)
def test_a_row_survives_being_written(task):
    assert msgspec.convert(msgspec.to_builtins(task), Task) == task
    text = msgspec.json.encode(task)
    assert json.loads(msgspec.json.encode(msgspec.json.decode(text, type=Task))) == json.loads(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, r"`int` >= 1 - at `\$.horizon`"),
        ({"rewards": {"scale": 0.0}}, r"`float` > 0.0 - at `\$.rewards.scale`"),
        ({"rewards": {"low": 1.0, "high": 0.0}}, r"exchange them - at `\$.rewards`"),
    ],
)
def test_a_row_that_cannot_be_is_refused(changes, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(msgspec.to_builtins(OWN) | changes, Task)

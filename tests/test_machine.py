"""What made a file: JSON that names the command, versions, commit and machine."""

import json

from calql.machine import provenance


def test_provenance_is_json():
    told = json.loads(json.dumps(provenance()))
    assert {"command", "git_commit", "packages", "python", "platform"} <= set(told)
    assert {"calql", "jax", "numpy"} <= set(told["packages"])

"""The model card of an export: its numbers are those of the run, its code runs, and no other file is overwritten."""

import csv
import json
import re
import subprocess
import sys

import pytest
from exported_arm import saved_run
from huggingface_hub import ModelCard

from calql.cli import main
from calql.export import load
from calql.training.card import score_at
from calql.training.export import export_run
from calql.types import InputError

ROWS = [  # of eval.csv: gradient step, mean score, standard error, episodes
    ("offline", 0, "0.25", "0.1", 20),
    ("online", 0, "0.35", "0.1", 20),
    ("online", 40, "0.8", "0.05", 20),
]


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint at gradient step 0, and evaluations that somebody wrote into its files."""
    folder = saved_run(tmp_path / "run", kind="images")
    with (folder / "eval.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phase", "grad_step", "score_mean", "score_sem", "episodes"])
        writer.writerows(ROWS)
    (folder / "summary.json").write_text(
        json.dumps({"score_before": 0.35, "score_after": 0.8, "regret": 0.412, "dip": None})
    )
    return folder


def changed(run, change):
    """Edit config.json."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_every_export_has_a_card_that_the_hub_can_read(run, tmp_path):
    export_run(run, tmp_path / "policy.npz", licence="mit")
    read = ModelCard((tmp_path / "policy.md").read_text()).data
    assert (read.license, read.library_name, read.pipeline_tag) == ("mit", "calql", "reinforcement-learning")
    assert {"reinforcement-learning", "offline-to-online", "cal-ql", "seen-arm"} <= {*read.tags}
    (result,) = read.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "seen-arm",
        "mean_score",
        "0.350 +/- 0.100",
    )
    assert result.verified is False


def test_its_numbers_are_those_of_the_run(run, tmp_path):
    changed(run, lambda config: config.update(differs_from_paper={"pretrain.batch_size": {"paper": 256, "here": 7}}))
    contract, _ = export_run(run, tmp_path / "policy.npz")
    text, origin = (tmp_path / "policy.md").read_text(), contract["provenance"]
    config = json.loads((run / "config.json").read_text())
    (start,) = config["starts"]
    for known in (
        "**0.350 ± 0.100**", "0.18 to 0.57", "20 deterministic episodes", "one seed (0)",  # Wilson of 7 in 20
        "| regret (1 − mean score during fine-tuning) | 0.412 |", "| `pretrain.batch_size` | `7` | `256` |",
        origin["data_fingerprint"], origin["checkpoint_sha256"], start["command"], start["git_commit"],
        f"{config['data']['transitions']} transitions", "uint8 [8, 8, 3]", "torque, force", "50 Hz",
        'license: "unknown"',
    ):  # fmt: skip
        assert known in text, known
    assert "dip" not in text  # nobody measured it
    assert "paper's experiments" not in text


def test_the_score_is_that_of_the_checkpoint_or_of_the_last_evaluation_before_it():
    rows = [
        dict(grad_step=str(step), score_mean=mean, score_sem=sem, episodes=str(n)) for _, step, mean, sem, n in ROWS
    ]
    rows.append(dict(grad_step="60", score_mean="", score_sem="", episodes="0"))
    assert [score_at(rows, step).step for step in (0, 39, 40, 70)] == [0, 0, 40, 40]
    assert score_at(rows, 0).mean == 0.35
    assert score_at(rows[:0], 50) is None
    assert str(score_at([rows[0] | {"score_sem": ""}], 50)) == "0.250"


def test_where_all_succeed_the_interval_has_a_width():
    (score,) = (score_at([dict(grad_step="0", score_mean="1.0", score_sem="0.0", episodes="30")], 0),)
    low, high = score.interval()
    assert (round(low, 3), high) == (0.886, 1.0)  # 30 / (30 + 1.96²)


def test_what_the_run_does_not_hold_is_said_to_be_unknown(run, tmp_path):
    for name in ("eval.csv", "summary.json"):
        (run / name).unlink()

    def forget(config):
        config.pop("differs_from_paper", None)
        config["starts"][0] = {}
        config["data"].pop("fingerprint", None)

    changed(run, forget)
    export_run(run, tmp_path / "policy.npz")
    text = (tmp_path / "policy.md").read_text()
    for unknown in (
        "did not measure a score",
        "does not record how its settings differ",
        "Commit `unknown`",
        "`unknown`.",
    ):
        assert unknown in text, unknown
    assert ModelCard(text).data.eval_results is None


@pytest.mark.parametrize("kind", ["states", "images"])
@pytest.mark.parametrize("form", ["npz", "onnx"])
def test_its_example_runs(kind, form, tmp_path):
    export_run(saved_run(tmp_path / "run", kind=kind), tmp_path / f"policy.{form}")
    (example,) = re.findall(r"```python\n(.*?)```", (tmp_path / "policy.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 5
    code = f"{example}\nprint(action.tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == load(tmp_path / f"policy.{form}").contract["actions"]["shape"][0]


def test_a_file_that_is_no_card_of_ours_stays(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# My project\n")
    with pytest.raises(InputError, match=r"README\.md exists and is no model card of calql's; name another: --card"):
        export_run(run, tmp_path / "policy.npz", card=readme)
    assert readme.read_text() == "# My project\n"
    assert not (tmp_path / "policy.npz").exists()
    with pytest.raises(InputError, match=r"card\.txt' names no model card; end it in \.md"):
        export_run(run, tmp_path / "policy.npz", card=tmp_path / "card.txt")


def test_the_command_writes_it_where_it_is_told_and_again(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for licence in ("mit", "cc-by-4.0"):
        with pytest.raises(SystemExit) as stop:
            main(["export", "run", "--out", "out/policy.npz", "--card", "out/README.md", "--license", licence])
        assert stop.value.code == 0
        assert "model card: out/README.md" in capsys.readouterr().out
        text = (tmp_path / "out" / "README.md").read_text()
        assert ModelCard(text).data.license == licence
        assert f"    calql export run --step 0 --out policy.npz --license {licence}" in text
    assert not (tmp_path / "out" / "policy.md").exists()

"""A run table is read like the run directories that it was made of."""

import csv
import json
import shutil

import pytest
from fake_runs import write_run, write_study
from hypothesis import example, given
from hypothesis import strategies as st

from calql.cli import main
from calql.reports.load import load_runs
from calql.reports.report import write_report
from calql.reports.stored import _difference, _patched, find_runs, run_table
from calql.types import InputError


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two formats, an unfinished run with half a last line, a column of one run alone, a slice, two tasks."""
    root = tmp_path_factory.mktemp("runs")
    write_study(root / "a", ["cal-ql", "cql", "sac"], range(3))
    write_run(root / "b", "iql", 0, "toy-pen", form=2)
    stopped = write_run(root / "b", "cql", 0, "toy-pen", done=False)
    with (stopped / "eval.csv").open("a") as file:
        file.write("online,9999,")
    wide = write_run(root / "b", "sac", 0, "toy-pen")
    lines = (wide / "eval.csv").read_text().splitlines()
    (wide / "eval.csv").write_text("\n".join([lines[0] + ",note", *(f'{line},"a, b"' for line in lines[1:])]) + "\n")
    (wide / "slice.csv").write_text("action,q,return_mean,return_sem,return_deterministic\n-1,1,2,3,4\n1,2,3,4,5\n")
    return root


@pytest.fixture(scope="module")
def table(runs, tmp_path_factory):
    """Their report, which tests only read."""
    return write_report([runs], tmp_path_factory.mktemp("table")).parent


@pytest.fixture(scope="module")
def table_of_a(runs, tmp_path_factory):
    """The report of those in folder a, which tests only read."""
    return write_report([runs / "a"], tmp_path_factory.mktemp("table-of-a")).parent


def test_a_report_is_made_again_from_itself_to_the_byte(table, tmp_path):
    write_report([table], tmp_path / "two")
    assert files(table) == files(tmp_path / "two")
    assert {"runs.json", "evaluations.csv", "slices.csv", "table.csv", "runs.csv"} < files(table).keys()


def test_a_table_holds_every_cell_and_setting_of_its_runs(runs, table):
    for one, other in zip(find_runs(runs), sorted(find_runs(table), key=lambda run: run.name), strict=True):
        assert one.name == other.name
        assert json.dumps(one.config, sort_keys=True) == json.dumps(other.config, sort_keys=True)
        assert one.done == other.done
        assert one.same(other)
    with (table / "evaluations.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "b/toy-pen-sac-0"]
    assert {row.pop("note") for row in rows} == {"a, b"}
    with (runs / "b" / "toy-pen-sac-0" / "eval.csv").open() as file:
        assert [{k: v for k, v in row.items() if k != "note"} for row in csv.DictReader(file)] == [
            {k: v for k, v in row.items() if k != "run"} for row in rows
        ]


def test_tables_are_small(runs, table):
    whole = sum(len(path.read_text()) for path in runs.rglob("config.json"))
    assert (table / "runs.json").stat().st_size < 0.6 * whole


def test_tables_and_directories_can_be_read_together(runs, table_of_a):
    together = load_runs([table_of_a, runs / "b"])
    assert [(run.task, run.label, run.seed) for run in together] == [
        (run.task, run.label, run.seed) for run in load_runs([runs])
    ]


def test_copies_of_a_run_count_once_and_other_runs_of_the_same_settings_do_not(runs, table_of_a, tmp_path):
    shutil.copytree(table_of_a, tmp_path / "all")
    assert len(load_runs([runs / "a", tmp_path / "all"])) == 9
    text = (tmp_path / "all" / "evaluations.csv").read_text()
    (tmp_path / "all" / "evaluations.csv").write_text(text.replace(",0.0400,", ",0.0500,", 1))
    with pytest.raises(InputError, match="repeats"):
        load_runs([runs / "a", tmp_path / "all"])


def test_a_report_inside_a_folder_of_runs_is_not_counted(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "runs")
    write_report([tmp_path / "runs"], tmp_path / "runs" / "report")
    shutil.rmtree(tmp_path / "runs" / "toy-maze-sac-2")
    again = write_report([tmp_path / "runs"], tmp_path / "runs" / "report").parent
    assert len(load_runs([tmp_path / "runs"])) == len(load_runs([again])) == 8


def test_plans_and_their_figures_work_on_a_table(tmp_path, capsys):
    for variant in ("cql", "cql,utd=5", "iql"):
        for seed in (0, 1):
            made = write_run(tmp_path / "made", variant.split(",")[0], seed, settings={"utd": 1 + 4 * ("," in variant)})
            made.rename((tmp_path / "runs" / "toy-maze" / variant / f"seed-{seed}").mkdir(parents=True) or
                        tmp_path / "runs" / "toy-maze" / variant / f"seed-{seed}")  # fmt: skip
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'tasks = ["toy-maze"]\nseeds = [0, 1]\n[[runs]]\nmethods = ["cql"]\n[[runs]]\nmethods = ["cql"]\n'
        'set = ["utd=5"]\n[[figures]]\ntitle = "One"\ndraws = ["score"]\nruns = ["cql,utd=5"]\n'
    )

    def report(source, out):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(source), "--plan", str(plan), "--out", str(tmp_path / out)])
        return stop.value.code

    assert report(tmp_path / "runs", "one") == 0
    write_report([tmp_path / "runs"], tmp_path / "all")
    shutil.rmtree(tmp_path / "runs")
    assert report(tmp_path / "all", "two") == 0
    assert report(tmp_path / "two", "three") == 0
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")
    assert {name for name in files(tmp_path / "one") if name.endswith("png")} == {
        "figures/toy-maze-overview.png", "figures/toy-maze-One-score.png",
    }  # fmt: skip
    names = [entry["run"] for entry in json.loads((tmp_path / "two" / "runs.json").read_text())]
    assert set(names) == {f"toy-maze/{variant}/seed-{seed}" for variant in ("cql", "cql,utd=5") for seed in (0, 1)}
    plan.write_text(plan.read_text().replace("[0, 1]", "[0, 1, 2]"))
    capsys.readouterr()
    assert report(tmp_path / "all", "four") == 2
    assert "toy-maze/cql/seed-2: no such run" in capsys.readouterr().err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.floats(0, 2) | st.text("ab.", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=8,
)
CONFIG = st.dictionaries(st.sampled_from(["a", "b", "c", "a.b"]), JSON, max_size=4)


@example({"a": 1, "b": {"a": True}}, {"a": 1.0, "b": {"a": 1}})  # equal to Python, and three settings
@given(CONFIG, CONFIG)
def test_a_configuration_told_by_its_difference_is_the_same(old, new):
    patch = json.loads(json.dumps(_difference(old, new)))
    assert json.dumps(_patched(old, patch), sort_keys=True) == json.dumps(new, sort_keys=True)


def edit(folder, change):
    listed = json.loads((folder / "runs.json").read_text())
    change(listed)
    (folder / "runs.json").write_text(json.dumps(listed))


BROKEN = {
    "no JSON": (lambda d: (d / "runs.json").write_text("["), "runs.json: cannot be read as JSON"),
    "an object": (lambda d: (d / "runs.json").write_text("{}"), "runs.json: must be a list"),
    "no name": (lambda d: edit(d, lambda runs: runs[0].pop("run")), "'run' of its own"),
    "a name twice": (lambda d: edit(d, lambda runs: runs.append(runs[0])), "'run' of its own"),
    "done by a word": (lambda d: edit(d, lambda runs: runs[0].update(done="yes")), "'done' .true or false."),
    "like nobody": (lambda d: edit(d, lambda runs: runs[1].update(like="me")), "is like 'me'"),
    "no config": (lambda d: edit(d, lambda runs: runs[0].pop("config")), "runs.json: not a run configuration"),
    "no evaluations": (lambda d: (d / "evaluations.csv").unlink(), "evaluations.csv: cannot be read"),
    "a run without rows": (
        lambda d: (d / "evaluations.csv").write_text("run,phase,env_step,grad_step,score_mean\n"),
        "evaluations.csv: lacks the column.s. phase",
    ),
    "no column run": (lambda d: (d / "evaluations.csv").write_text("phase\n"), "lacks the column run"),
    "rows of nobody": (
        lambda d: (d / "evaluations.csv").write_text("run,phase\nx,offline\n"),
        "evaluations.csv line 2: no run 'x'",
    ),
    "text for a number": (
        lambda d: (d / "evaluations.csv").write_text((d / "evaluations.csv").read_text().replace(",0.0400,", ",x,", 1)),
        "evaluations.csv line 2: score_sem is 'x'",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A report of two runs."""
    folder = tmp_path_factory.mktemp("whole")
    write_study(folder / "runs", ["cql"], range(2))
    return write_report([folder / "runs"], folder / "table").parent


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_gets_one_clear_line(name, whole, tmp_path):
    spoil, cause = BROKEN[name]
    shutil.copytree(whole, tmp_path / "table")
    load_runs([tmp_path / "table"])
    spoil(tmp_path / "table")
    with pytest.raises(InputError, match=cause) as error:
        load_runs([tmp_path / "table"])
    assert "\n" not in str(error.value)
    assert ";" in str(error.value), "a cause and a fix"


def test_tables_below_a_folder_keep_the_names_apart(tmp_path):
    for folder, note in (("one", "a"), ("two", "b")):
        write_run(tmp_path / "runs" / folder, "cql", 0, settings={"note": note})
        write_report([tmp_path / "runs" / folder], tmp_path / "tables" / folder)
    found = find_runs(tmp_path / "tables")
    assert [run.name for run in found] == ["one/toy-maze-cql-0", "two/toy-maze-cql-0"]
    assert run_table(found)["runs.json"].count('"like"') == 1

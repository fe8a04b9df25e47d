import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_runs import write_run, write_study
from hypothesis import given
from hypothesis import strategies as st

from calql.paper.methods import METHODS
from calql.reports import figures
from calql.reports.load import labelled, load_runs
from calql.reports.report import write_report
from calql.reports.style import HERO, HERO_COLOUR, styles
from calql.sweeps import Comparison
from calql.types import InputError


class Page(HTMLParser):
    """Collects tags with their attributes, ids, visible text and unclosed elements."""

    VOID = frozenset({"meta", "br", "use"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.open, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_study(root, ["cal-ql", "cql", "sac", "bc"], range(3))
    write_run(root, "cql", 7, done=False)
    return root


@pytest.fixture(scope="module")
def out(study, tmp_path_factory):
    return write_report([study], tmp_path_factory.mktemp("out") / "deep" / "report").parent


@pytest.fixture(scope="module")
def page(out):
    return (out / "report.html").read_text(encoding="utf-8")


def test_every_file_is_there(out):
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    figures = ("overview", "score", "q", "bounding")
    drawn = {f"figures/toy-maze-{name}.{kind}" for name in figures for kind in ("png", "svg")}
    tables = {"table.csv", "table.md", "table.tex", "runs.csv", "runs.json", "evaluations.csv"}
    assert names == {"report.html"} | tables | drawn
    for path in out.glob("figures/*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    for path in out.glob("figures/*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_page_needs_nothing_but_itself(page):
    tags = Page(page).tags
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            assert attributes.get(name, "#").startswith("#")
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", page))


def test_the_page_is_sound(page):
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids)), "ids are unique although four figures are inlined"
    for target in re.findall(r'url\(#(.*?)\)|href="#(.*?)"', page):
        assert max(target) in parsed.ids
    assert [tag for tag, _ in parsed.tags].count("svg") == 4


def test_every_table_scrolls_in_its_own_box(page):
    """So that the page itself is never wider than a phone."""
    tables = re.findall(r"([^>]*>)<table", page)
    assert len(tables) > 4
    assert all(re.search(r'class="[^"]*scroll', before) for before in tables), tables


def test_the_page_says_what_it_must(page):
    words = " ".join(Page(page).words)
    for part in (
        "Cal-QL, BC, CQL and SAC on toy-maze",
        "3 to 4 seeds each",
        "1 of them unfinished",
        "Cal-QL went from a score of",
        "Cal-QL's Q lay below the reference value",
        "range of 3 seeds",
        "band: range of 3 seeds.",
        "not settled",
        "calql train --task toy-maze --method cal-ql --seed 2",
        "Different from the paper",
        "5f2d9c0a",
        "0123abc",
        "0.10.0",
        "Bounding rate",
    ):
        assert part in words


def test_text_from_a_run_is_escaped(tmp_path):
    run_dir = write_run(tmp_path, "cql", 0)
    config = json.loads((run_dir / "config.json").read_text())
    config |= {"task": "my<b>.module:factory&co", "command": "<script>alert(1)</script>"}
    (run_dir / "config.json").write_text(json.dumps(config))
    page = write_report([run_dir], tmp_path / "out").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "my&lt;b&gt;.module:factory&amp;co" in page
    assert (tmp_path / "out/figures/my-b-.module-factory-co-score.png").exists()


def test_several_tasks_get_a_profile_and_a_section_each(tmp_path):
    write_study(tmp_path / "runs", ["cal-ql", "cql"], range(2), ["toy-maze", "toy-pen"])
    page = write_report([tmp_path / "runs"], tmp_path / "out").read_text(encoding="utf-8")
    assert (tmp_path / "out/figures/all-tasks-profile.svg").exists()
    assert re.findall(r'<h2 id="(.*?)"', page) == ["all-tasks", "toy-maze", "toy-pen"]
    assert "regret is the lowest on 2 of 2 tasks" in page


def test_a_run_without_evaluations_does_not_break_the_report(tmp_path):
    run_dir = write_run(tmp_path, "cal-ql", 0, done=False)
    (run_dir / "eval.csv").unlink()
    assert "No run has finished" in write_report([run_dir], tmp_path / "out").read_text(encoding="utf-8")
    assert not (tmp_path / "out/figures").exists()


def test_an_output_that_cannot_be_written_is_bad_input(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([study], tmp_path / "file" / "out")


def test_nothing_is_bold_before_it_is_settled(page, tmp_path):
    assert 'class="best"' not in page
    write_study(tmp_path / "runs", ["cal-ql", "sac"], range(6))
    many = write_report([tmp_path / "runs"], tmp_path / "out").read_text(encoding="utf-8")
    assert 'class="best"' in many
    assert "band: 95 % interval." in many
    assert "range of 6 seeds" not in many


def test_tasks_are_headed_by_their_titles(tmp_path):
    for task, title in (("toy-maze", "The maze"), ("toy-pen", None)):
        run_dir = write_run(tmp_path / "runs", "cql", 0, task)
        config = json.loads((run_dir / "config.json").read_text()) | {"task_title": title}
        (run_dir / "config.json").write_text(json.dumps(config))
    page = write_report([tmp_path / "runs"], tmp_path / "out").read_text(encoding="utf-8")
    assert '<h2 id="toy-maze">The maze</h2>' in page
    assert '<h2 id="toy-pen">toy-pen</h2>' in page
    assert "| The maze | CQL |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "toy-maze,CQL" in (tmp_path / "out" / "table.csv").read_text(encoding="utf-8")


def test_the_band_is_the_iqm_of_finished_seeds(study):
    runs = [run for run in load_runs([study]) if run.method == "cql"]
    steps, middle, low, high = figures.band(runs, "online", "score_mean")
    curves = [run.curve("online", "score_mean") for run in runs if run.done]
    np.testing.assert_allclose(steps, curves[0][0])
    np.testing.assert_allclose(middle, np.mean([scores for _, scores in curves], axis=0))
    scores = [values for _, values in (curve for curve in curves)]
    np.testing.assert_allclose((low, high), (np.min(scores, axis=0), np.max(scores, axis=0)))


def test_the_band_of_five_seeds_is_an_interval(tmp_path):
    runs = load_runs(write_study(tmp_path, ["cql"], range(6)))
    _, middle, low, high = figures.band(runs, "online", "score_mean")
    scores = np.stack([run.curve("online", "score_mean")[1] for run in runs])
    assert ((low <= middle) & (middle <= high)).all()
    assert (low > scores.min(axis=0)).mean() > 0.8
    assert figures.spread_note(runs) == "95 % interval"
    assert figures.spread_note(runs[:3]) == "range of 3 seeds"


def test_seeds_on_different_steps_are_interpolated_where_all_reach(tmp_path):
    write_run(tmp_path, "sac", 0, env_steps=1000, points=11)
    write_run(tmp_path / "b", "sac", 1, env_steps=900, points=10)
    runs = load_runs([tmp_path])
    steps, middle, *_ = figures.band(runs, "online", "score_mean")
    assert (steps[0], steps[-1]) == (0, 900)
    expected = np.mean([np.interp(550, *run.curve("online", "score_mean")) for run in runs], axis=0)
    assert np.interp(550, steps, middle) == pytest.approx(expected)


def test_offline_and_online_share_one_y_axis_and_meet_at_the_border(study):
    figure = figures.score_figure(load_runs([study]))
    offline, online = figure.axes
    assert offline.get_ylim() == online.get_ylim()
    assert offline.get_position().x1 == pytest.approx(online.get_position().x0)
    assert offline.get_xlabel() == "gradient steps"
    assert online.get_xlabel() == "environment steps"
    labels = [text.get_text() for text in online.texts]
    assert sorted(labels) == ["BC (offline)", "CQL", "Cal-QL", "SAC"]
    assert [text.get_text() for text in figure.texts] == ["band: range of 3 seeds"]


def test_a_figure_nobody_measured_is_left_out(tmp_path):
    runs = load_runs([write_run(tmp_path, "bc", 0)])
    assert figures.q_figure(runs) is None
    assert len(figures.score_figure(runs).axes) == 1


def test_pre_training_alone_has_one_panel(tmp_path):
    """Such runs have an online evaluation at step 0, which is no curve."""
    path = write_run(tmp_path, "iql", 0)
    lines = (path / "eval.csv").read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("online"))
    (path / "eval.csv").write_text("".join(lines[: first + 1]))
    assert [axes.get_xlabel() for axes in figures.score_figure(load_runs([path])).axes] == ["gradient steps"]


def test_slices_of_q_stand_beside_the_truth_a_panel_a_seed(tmp_path):
    write_run(tmp_path, "sac", 0)
    assert figures.slice_figure(load_runs([tmp_path])) is None
    for i, (method, seed) in enumerate([("cal-ql", 0), ("cal-ql", 1), ("cql", 0)]):
        path = write_run(tmp_path, method, seed)
        rows = "".join(f"{x},{i + x},{i - x},0.5,{5 * x}\n" for x in (-1, 0, 1))
        (path / "slice.csv").write_text("action,q,return_mean,return_sem,return_deterministic\n" + rows)
    figure = figures.slice_figure(load_runs([tmp_path]))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["seed 0", "seed 1"]
    curves = [line.get_ydata().tolist() for line in figure.axes[0].lines if line.get_xdata()[0] == -1]
    rings = [-5, 0, 5]
    assert curves == [[3, 2, 1], rings, [1, 2, 3], [1, 0, -1], rings, [-1, 0, 1]]  # CQL's truth and Q, then Cal-QL's


@pytest.mark.parametrize("other", [{"reward_scale": 1.0}, {"discount": 0.9}])
@pytest.mark.parametrize("form", [1, 2])
def test_values_of_other_rewards_do_not_share_the_axis(tmp_path, other, form):
    same = {"reward_scale": 11.0, "reward_bias": -1.0, "discount": 0.96}
    paths = {"reward_scale": "task.rewards.scale", "discount": "finetune.algorithm.discount"}
    for method, settings in [("cal-ql", same), ("cql", same), ("iql", same | other)]:
        changes = {path: settings[name] for name, path in paths.items()}
        write_run(tmp_path, method, 0, settings=settings, form=form, changes=changes)
    runs = load_runs([tmp_path])
    said = [
        {text.get_text() for text in draw(runs).axes[-1].texts} for draw in (figures.q_figure, figures.score_figure)
    ]
    assert said[0] == {"Cal-QL", "CQL", "return of the data"}
    assert "IQL" in said[1]


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=14))
def test_labels_keep_their_distance_and_order(wanted):
    heights = figures.moved_apart(wanted, 0.07)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(np.array(heights)[order]) >= 0.07 - 1e-9).all()
    assert min(heights) >= -1e-9
    assert max(heights) <= 1 + 1e-9


def test_every_method_looks_different_and_always_the_same():
    looks = styles({method: method for method in [*METHODS, *"abcdef"]})
    assert len(set(looks.values())) == len(METHODS) + 6
    assert styles({"CQL": "cql"})["CQL"] == looks["cql"]
    assert [label for label, (colour, _) in looks.items() if colour == HERO_COLOUR] == [HERO]
    variants = styles({"CQL (a)": "cql", "CQL (b)": "cql", "IQL": "iql"})
    assert variants["CQL (a)"][0] == variants["CQL (b)"][0]
    assert variants["CQL (a)"][1] != variants["CQL (b)"][1]
    alone = styles({f"CQL ({i})": "cql" for i in range(7)})
    assert len(set(alone.values())) == 7


def test_comparisons_are_drawn_in_place_of_all_runs_and_name_only_what_differs_within(tmp_path):
    write_run(tmp_path / "runs", "cql", 0)
    for seed in (1, 2):
        write_run(tmp_path / "runs", "sac", seed, settings={"utd": seed})
    runs = load_runs([tmp_path / "runs"])
    assert [run.label for run in runs] == ["CQL", "SAC (utd=1)", "SAC (utd=2)"]
    dirs = frozenset(run.stored.path for run in runs[:2])
    compared = [Comparison("Figure 0", ("q", "score"), dirs), Comparison("None of these", ("score",), frozenset())]
    page = write_report([tmp_path / "runs"], tmp_path / "out", compared)
    drawn = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert drawn == {"toy-maze-overview", "toy-maze-Figure-0-score", "toy-maze-Figure-0-q"}
    words = Page(page.read_text()).words
    assert [word for word in words if word.startswith("Figure 0")] == [
        "Figure 0: Learning curves", "Figure 0: Mean Q against the return of the data",
    ]  # fmt: skip
    assert [run.label for run in labelled(runs[:2])] == ["CQL", "SAC"]


def test_variants_may_differ_in_many_settings(tmp_path):
    """Their names have as many lines as they need, and files a name that a file may have."""
    for number in range(3):
        settings = {f"a_setting_with_a_long_name_{i}": number * 1000 + i for i in range(9)}
        log = write_run(tmp_path / "runs", "cql", number, settings=settings) / "train.csv"
        log.write_text("phase,env_step,grad_step,loss\noffline,0,10,0.5\noffline,0,20,0.4\n")
    write_report([tmp_path / "runs"], tmp_path / "out")
    drawn = [path.name for path in (tmp_path / "out" / "figures").glob("*.png")]
    assert "toy-maze-overview.png" in drawn
    assert len([name for name in drawn if name.startswith("toy-maze-training-CQL-")]) == 3
    assert max(map(len, drawn)) < 130

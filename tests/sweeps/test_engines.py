"""The engines of clusters, with small programs: a small SLURM of this machine by submitit, and a Ray of two cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import fake_slurm
import pytest
from small_jobs import Job, lives, until

from calql.cli import main
from calql.paper.tasks import DEFAULT_TASK
from calql.sweeps import ray as ray_engine
from calql.sweeps.ray import Ray
from calql.sweeps.slurm import Slurm
from calql.types import InputError, RunError

ray = pytest.importorskip("ray")
pytest.importorskip("submitit")

PATH = os.pathsep.join(map(os.path.abspath, [Path(__file__).parents[1], *filter(None, sys.path)]))
"""Of what the processes of an engine import: calql, and this folder's small programs."""
SAVES = """
import os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir(exist_ok=True)
starts = len(list(out.glob("start-*")))
def save(number, frame):
    (out / f"asked-{len(list(out.glob('asked-*')))}").touch()
    time.sleep(0.5)
    (out / f"saved-{starts}").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(out / f"start-{starts}").touch()
parent = os.getppid()
while starts == 0 and os.getppid() == parent:  # a run of calql, too, stops with its parent
    time.sleep(0.02)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Installs a SLURM; returns a function that calls one of its commands."""
    folder = tmp_path / "bin"
    fake_slurm.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", PATH)
    yield lambda *words: subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout
    for job in (folder / "jobs").glob("[0-9]*"):
        if step := int(job.read_text().split()[1]):
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(step), signal.SIGKILL)


@pytest.fixture(scope="module")
def two_cores():
    """A Ray of two cores, which the engine finds in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        ours = signal.getsignal(signal.SIGTERM)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        signal.signal(signal.SIGTERM, ours)
        yield
        ray.shutdown()


@pytest.fixture
def jobs(tmp_path):
    return [Job(tmp_path / name) for name in ("a", "b")]


def ends(engine, jobs) -> dict[str, int]:
    *_, last = engine.run(jobs)
    assert last.running == []
    return {job.out.name: code for job, code in last.ended.items()}


# -- what both do ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["cluster=local"]])
def test_slurm_does_the_jobs_and_tells_their_ends(tmp_path, jobs, cluster, options):
    (tmp_path / "go").touch()
    engine = Slurm(options, tmp_path / "slurm", poll_s=0.1)
    assert ends(engine, [*jobs, Job(tmp_path / "bad"), Job(tmp_path / "old", done=True)]) == dict(
        a=0, b=0, bad=3, old=0
    )
    assert not (tmp_path / "old").exists()


def test_ray_does_the_jobs_and_tells_their_ends(tmp_path, jobs, two_cores):
    (tmp_path / "go").touch()
    engine = Ray([], poll_s=0.1)
    assert ends(engine, [*jobs, Job(tmp_path / "bad"), Job(tmp_path / "old", done=True)]) == dict(
        a=0, b=0, bad=3, old=0
    )
    assert ray.is_initialized()


def test_when_all_is_done_no_cluster_is_asked(tmp_path, cluster):
    assert list(Slurm([], tmp_path / "slurm").run([Job(tmp_path / "old", done=True)])) == []
    assert not (tmp_path / "slurm").exists()


@pytest.mark.parametrize(
    ("engine", "text", "said"),
    [
        ("slurm", "partion=gpu", "unknown option of --engine slurm 'partion'; did you mean partition"),
        ("slurm", "gpu", "--engine-options takes NAME=VALUE, not 'gpu'"),
        ("slurm", "time=4h", "time is 4h; give a whole number of minutes"),
        ("slurm", "time=4", "time is 4; give a whole number of minutes, at least 5"),
        ("slurm", "cluster=moon", "moon"),
        ("ray", "num_gpu=1", "unknown option of --engine ray 'num_gpu'; did you mean num_gpus"),
        ("ray", "=1", "--engine-options takes NAME=VALUE, not '=1'"),
        ("local", "num_gpus=1", "--engine-options are for --engine slurm or ray"),
    ],
)
def test_options_that_an_engine_does_not_have(tmp_path, cluster, capfd, engine, text, said):
    command = ["sweep", "--tasks", DEFAULT_TASK, "--methods", "bc", "--out", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--engine", engine, "--engine-options", text])
    lines = capfd.readouterr().err.strip().splitlines()
    assert (stop.value.code, len(lines)) == (2, 1)
    assert said in lines[0]
    assert not (tmp_path / "runs" / DEFAULT_TASK).exists()


@pytest.mark.parametrize(("name", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, capfd, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    command = ["sweep", "--tasks", DEFAULT_TASK, "--methods", "bc", "--out", str(tmp_path / "runs"), "--engine", name]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert f"pip install 'calql[{name}]'" in capfd.readouterr().err


# -- SLURM -------------------------------------------------------------------------------------------------------------


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match='"srun"'):
        Slurm([], tmp_path / "slurm")


def test_slurm_is_asked_for_what_the_options_say(tmp_path, jobs, cluster):
    (tmp_path / "go").touch()
    asked = ["partition=gpu", "time=90", "mem=16GB", "gpus_per_task=1", "setup=module load cuda", "account=7"]
    assert ends(Slurm(asked, tmp_path / "slurm", workers=1, cores=3, poll_s=0.1), jobs) == dict(a=0, b=0)
    (script,) = (tmp_path / "slurm").glob("*_submission.sh")
    lines = script.read_text().splitlines()
    wanted = ("partition=gpu", "time=90", "mem=16GB", "gpus-per-task=1", "account=7", "array=0-1%1", "cpus-per-task=3")
    for line in (*(f"#SBATCH --{option}" for option in wanted), "module load cuda"):
        assert line in lines
    assert [line for line in lines if line.startswith("srun ") and "--cpus-per-task=3" in line]
    assert jobs[0].wait()[1].split()[0] == os.environ.get("OMP_NUM_THREADS", "3")


def test_jobs_outlive_the_sweep_and_are_found_again(tmp_path, jobs, cluster):
    def engine():
        return Slurm([], tmp_path / "slurm", poll_s=0.1)

    first = engine()
    with closing(first.run(jobs)) as statuses:
        next(statuses)
        processes = [job.wait()[0] for job in jobs]
    assert all(map(lives, processes))
    assert first.left().endswith("scancel 1")
    with closing(engine().run(jobs)) as statuses:
        next(statuses)
        (tmp_path / "go").touch()
        *_, last = statuses
    assert {job.out.name: code for job, code in last.ended.items()} == dict(a=0, b=0)
    assert len(list((tmp_path / "slurm").glob("*_submission.sh"))) == 1
    assert not any(map(lives, processes))


@pytest.mark.parametrize("signals", [["SIGUSR2"], ["SIGTERM", "SIGUSR2"], ["SIGTERM", "SIGTERM", "SIGUSR2"]])
def test_a_job_that_must_leave_saves_once_and_is_queued_again(tmp_path, cluster, signals):
    """SLURM's signal before the time limit, and those of a preemption."""
    a, b = (Job(tmp_path / name, program=SAVES) for name in "ab")
    with closing(Slurm([], tmp_path / "slurm", poll_s=0.1).run([a, b])) as statuses:
        next(statuses)
        for job in (a, b):
            until(lambda job=job: (job.out / "start-0").exists())
        for name in signals:
            cluster("scancel", "1", "--signal", name)
        *_, last = statuses
    assert last.ended == {a: 0, b: 0}
    for job in (a, b):
        assert sorted(path.name for path in job.out.iterdir()) == ["asked-0", "saved-0", "start-0", "start-1"]


def test_a_cancelled_job_saves_and_its_log_says_so(tmp_path, cluster, monkeypatch):
    job = Job(tmp_path / "a", program=SAVES)
    with closing(Slurm([], tmp_path / "slurm", poll_s=0.1).run([job])) as statuses:
        next(statuses)
        until(lambda: (job.out / "start-0").exists())
        cluster("scancel", "1")
        *_, last = statuses
    assert last.ended == {job: 1}
    assert (job.out / "saved-0").exists()
    assert "SLURM job 1 ended early: " in (tmp_path / "a.log").read_text().splitlines()[-1]


def test_a_submission_that_slurm_refuses(tmp_path, jobs, cluster):
    with pytest.raises(RunError, match="invalid partition specified: nowhere; correct --engine-options"):
        list(Slurm(["partition=nowhere"], tmp_path / "slurm").run(jobs))


# -- Ray ---------------------------------------------------------------------------------------------------------------


def test_leaving_stops_what_runs_under_ray(tmp_path, two_cores):
    jobs = [Job(tmp_path / name, program=SAVES) for name in "abc"]
    with closing(Ray([], poll_s=0.1).run(jobs)) as statuses:
        next(statuses)
        until(lambda: len(list(tmp_path.glob("*/start-0"))) == 2)
    assert len(list(tmp_path.glob("*/saved-0"))) == 2
    assert len(list(tmp_path.glob("*"))) == 4  # two folders with their logs: the third did not begin


def test_no_more_workers_than_asked_for(tmp_path, jobs, two_cores):
    with closing(Ray([], workers=1, poll_s=0.5).run(jobs)) as statuses:
        next(statuses)
        assert jobs[0].wait()[1].split()[0] == os.environ.get("OMP_NUM_THREADS", "1")
        next(statuses)
        assert not jobs[1].out.exists()


def test_a_worker_that_dies_is_replaced_and_the_run_goes_on(tmp_path, two_cores):
    job = Job(tmp_path / "a", program=SAVES)
    with closing(Ray([], poll_s=0.1).run([job])) as statuses:
        next(statuses)
        until(lambda: (job.out / "start-0").exists())
        (worker,) = {int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if is_at_work(p)}
        os.kill(worker, signal.SIGKILL)
        *_, last = statuses
    assert last.ended == {job: 0}
    assert (job.out / "start-1").exists()


def is_at_work(cmdline: Path) -> bool:
    with suppress(OSError):
        return cmdline.read_bytes().startswith(b"ray::do")
    return False


@pytest.mark.parametrize("options", [["num_cpus=-1"], ["num_gpus=some"], ["resources=1"]])
def test_what_ray_refuses_is_one_line(jobs, two_cores, options):
    with pytest.raises(InputError, match=r"--engine ray: .*; correct --engine-options"):
        list(Ray(options).run(jobs))


def test_a_cluster_that_is_not_there(jobs, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(address, **_):
        raise ConnectionError(f"Could not find any running Ray instance {address}")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=r"no Ray cluster at auto .*; start one: ray start --head"):
        list(Ray(["address=auto"]).run(jobs))


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"),
    [
        (1, 0, {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}),
        (0.5, 0.25, {"OMP_NUM_THREADS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
        (4, 1, {"OMP_NUM_THREADS": "4"}),
    ],
)
def test_a_run_uses_its_share_of_a_machine(monkeypatch, cpus, gpus, expected):
    for name in ("OMP_NUM_THREADS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.delenv(name, raising=False)
    assert ray_engine._settings(num_cpus=cpus, num_gpus=gpus) == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert ray_engine._settings(num_cpus=cpus, num_gpus=gpus)["OMP_NUM_THREADS"] == "7"

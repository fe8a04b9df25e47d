"""A SLURM of one machine for tests: sbatch, srun, squeue, scancel and scontrol, by the name of the file.

`install(folder)` puts the commands there. A job of an array is a session of processes; `FOLDER/jobs/ID_INDEX` holds its
state and the process of its step. As SLURM does, a signal goes to the step alone, and the end (KILL) to all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
KILL_WAIT_S = 6.0


def install(folder: Path) -> None:
    (folder / "jobs").mkdir(parents=True)
    for name in COMMANDS:
        (folder / name).write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        (folder / name).chmod(0o755)


def jobs() -> Path:
    return Path(sys.argv[0]).parent / "jobs"


def state(job: str) -> list[str]:
    """[state, process of the step]"""
    return (jobs() / job).read_text().split()


def note(job: str, *words: object) -> None:
    (jobs() / f".{job}").write_text(" ".join(map(str, words)))
    (jobs() / f".{job}").rename(jobs() / job)


def background(*words: str) -> None:
    nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen([sys.argv[0], *words], start_new_session=True, **nowhere)


def sbatch(script: str) -> None:
    if "partition=nowhere" in Path(script).read_text():
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    array = re.search(r"--array=0-(\d+)", Path(script).read_text())
    number = 1 + len({path.name.split("_")[0] for path in jobs().glob("[0-9]*")})
    for index in range(int(array[1]) + 1 if array else 1):
        name = f"{number}_{index}" if array else f"{number}"
        note(name, "PENDING", 0)
        background("_job", name, script)
    print(f"Submitted batch job {number}")


def job(name: str, script: str) -> None:
    array, _, index = name.partition("_")
    settings = {"SLURM_JOB_ID": name.replace("_", "00"), "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    settings |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index} if index else {"SLURM_JOB_ID": name}
    settings |= {"SLURM_CPUS_PER_TASK": "3"}
    code = 0
    while state(name)[0] in ("PENDING", "REQUEUED"):
        note(name, "RUNNING", 0)
        code = subprocess.call(["bash", script], env=os.environ | settings)
    if state(name)[0] == "RUNNING":
        note(name, "FAILED" if code else "COMPLETED", 0)


def srun(*words: str) -> None:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]
    words, places = list(words), {}
    while words[0].startswith("--"):
        option = words.pop(0)
        if option in ("--output", "--error"):
            places[option] = words.pop(0).replace("%A", f"{array}").replace("%a", f"{index}").replace("%j", name)
    for option, number in (("--output", 1), ("--error", 2)):
        os.dup2(os.open(places[option].replace("%t", "0"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    note(name, "RUNNING", os.getpid())
    os.execvp(words[0], words)


def squeue(*_: str) -> None:
    """Jobs that wait, run, or are completing."""
    for path in jobs().glob("[0-9]*"):
        word, step = state(path.name)
        if word in ("PENDING", "RUNNING", "REQUEUED") or lives(int(step)):
            print(path.name)


def lives(process: int) -> bool:
    try:
        return process > 0 and b") Z " not in Path(f"/proc/{process}/stat").read_bytes()
    except FileNotFoundError:
        return False


def scancel(which: str, *more: str) -> None:
    """All jobs of an array, or one: a signal, or the end."""
    for path in jobs().glob(f"{which}*"):
        step = int(state(path.name)[1])
        if more:
            os.kill(step, getattr(signal, more[-1]))
            continue
        note(path.name, "CANCELLED", step)
        if step:
            os.kill(step, signal.SIGTERM)
            background("_end", str(step))


def end(step: int) -> None:
    time.sleep(KILL_WAIT_S)
    os.killpg(os.getpgid(step), signal.SIGKILL)


def scontrol(verb: str, name: str) -> None:
    assert verb == "requeue"
    note(name, "REQUEUED", 0)


if __name__ == "__main__":
    if sys.argv[1] == "_job":
        job(*sys.argv[2:])
    elif sys.argv[1] == "_end":
        end(int(sys.argv[2]))
    else:
        globals()[Path(sys.argv[0]).name](*sys.argv[1:])

"""Search of a plan's space with Optuna: a trial is the runs of one choice of options, each in its own run directory.

    OUT/study.jsonl                          what Optuna knows: a journal, one line of JSON per change
    OUT/trials/NNNN/TASK/METHOD/seed-N       run directories

Nothing else is stored: an interrupted search goes on from the journal, and its runs from their directories.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from calql.evaluation.metrics import summarise
from calql.extras import needed_for
from calql.machine import has_accelerator, threads
from calql.sweeps.engine import Status
from calql.sweeps.local import Local
from calql.sweeps.plan import Job, Plan, make_jobs
from calql.sweeps.process import log_path
from calql.sweeps.space import dimensions
from calql.tasks import nearest
from calql.training.experiment import Experiment, before_fine_tuning, encode
from calql.training.options import experiment
from calql.training.run_dir import RunDir
from calql.types import InputError, RunError

OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    "regret": "minimize",
    "dip": "minimize",
    "wall_s": "minimize",
    "score_before": "maximize",
    "score_after": "maximize",
    "relative_improvement": "maximize",
}
"""Name in summary.json → which end of it is the better one."""
STUDY = "study.jsonl"
UNCOMPARED = 5
"""Trials that must be complete before others are pruned, and before importances are told."""
FAILED_AT_FIRST = 3
"""So many failed trials, and none that did not, end a search."""


class Outcome(NamedTuple):
    """A trial that is over."""

    number: int
    state: str
    """complete, pruned or failed."""
    options: tuple[str, ...]
    """`name=value` texts."""
    value: float | None
    """Mean objective over its runs: at the end, or where it was pruned; None if it failed."""
    values: tuple[float, ...]
    """Objective of each run, if all are complete."""
    why: str
    """Reason of a failure, or ""."""
    folder: Path
    """Of its run directories."""


class Progress(NamedTuple):
    """What a search yields at each poll."""

    running: dict[int, list[Job]]
    """Number of a trial → its runs."""
    over: list[Outcome]


@dataclasses.dataclass
class _Running:
    trial: Any
    """optuna.trial.Trial."""
    jobs: list[Job]
    workers: int
    engine: Generator[Status, None, None]
    told: set[int]
    """Numbers of the evaluations that Optuna knows."""


class Search:
    """A search in a folder, new or interrupted."""

    def __init__(self, plan: Plan, out: Path, objective: str = "regret", seed: int = 0, pruning: bool = True) -> None:
        """Check the plan and open the study. `seed`: of Optuna's sampler; `pruning`: whether trials that are worse than
        the median of the others, at the same evaluation, are stopped.

        Raises InputError for a plan that cannot be searched, and if `out` holds another search.
        """
        if objective not in OBJECTIVES:
            raise nearest(objective, OBJECTIVES, "objective")
        if not plan.space:
            raise InputError("there is nothing to search; give the plan a table [space] (see docs/tune.md)")
        if len(plan.variants) != 1:
            raise InputError("a search is of one method; leave one in the plan, under one [[runs]]")
        if plan.figures:
            raise InputError("a search draws no [[figures]]; leave them out")
        (variant,) = plan.variants
        self.plan, self.out, self.objective = plan, out, objective
        options = (*variant.options, *plan.options)
        spaces = [dimensions(plan.space, task, variant.method, plan.scale, plan.data, options) for task in plan.tasks]
        self.dimensions = spaces[0]
        made = [experiment(task, variant.method, plan.scale, 0, plan.data, options) for task in plan.tasks]
        _refuse_unmeasured(made, objective)
        self.evaluations = min(one.phases[-1].length // one.phases[-1].eval_every for one in made)
        what = {
            "objective": objective,
            "seeds": list(plan.seeds),
            "space": {name: [type(part).__name__, *part.texts()] for name, part in plan.space.items()},
            "runs": [encode(one) for one in made],
        }
        self._about, self._seed, self._pruning = json.loads(json.dumps(what)), seed, pruning
        self._study: Any = None
        self._begun: list[tuple[Experiment, Path]] = []

    def jobs(self, options: Sequence[str], folder: Path, seeds: Sequence[int] | None = None) -> list[Job]:
        """The runs of one choice of options. Raises InputError if they do not fit each other."""
        chosen = {"seeds": tuple(seeds)} if seeds else {}
        plan = dataclasses.replace(self.plan, options=(*self.plan.options, *options), space={}, **chosen)
        return make_jobs(plan, folder)

    def over(self) -> list[Outcome]:
        """The trials that are over, in order."""
        return [self._outcome(trial) for trial in self._trials() if trial.state.is_finished()]

    def importance(self) -> dict[str, float]:
        """Option → share of the differences between complete trials that it explains (PED-ANOVA); {} for few trials."""
        import optuna

        complete = [one.value for one in self.over() if one.state == "complete"]
        if len(complete) < UNCOMPARED or len(set(complete)) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is experimental in some versions
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    @contextmanager
    def open(self) -> Generator[None, None, None]:
        """Be the only search in the folder. Raises InputError if there is another, or the folder holds other things."""
        with needed_for("a search"):
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = self.out / STUDY
        if self.out.exists() and (not self.out.is_dir() or (list(self.out.glob("[!.]*")) and not file.exists())):
            raise InputError(f"{self.out} exists and holds no search; choose another --out")
        with RunDir(self.out).lock():
            _drop_incomplete_line(file)
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(file))),
                study_name="calql",
                direction=OBJECTIVES[self.objective],
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(UNCOMPARED, n_warmup_steps=self.evaluations // 4)
                if self._pruning
                else optuna.pruners.NopPruner(),
            )
            # Not the seed alone: a search that goes on would draw the same again.
            study.sampler = optuna.samplers.TPESampler(seed=self._seed + len(study.trials))
            about = study.user_attrs.get("search")
            if about is None:
                study.set_user_attr("search", self._about)
            elif different := [name for name in self._about if about.get(name) != self._about[name]]:
                said = ", ".join(different)
                raise InputError(f"{self.out} holds a search with another {said}; choose another --out")
            self._study = study
            yield

    def run(self, trials: int, workers: int | None = None, poll_s: float = 1.0) -> Generator[Progress, None, None]:
        """Run trials until there are so many, those of earlier starts included; at most `workers` runs at a time.

        By default one run per core, or one on a machine with a GPU. Closing the generator stops the runs, which save
        their state, and the same search goes on with them. Raises RunError if the first trials all fail.
        """
        from optuna.trial import Trial, TrialState

        gpu = has_accelerator()
        free = workers or (1 if gpu else threads())
        if gpu and free > 1:  # several engines, each of which knows only its own runs
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        for one in self.over():
            with suppress(InputError):  # options that did not fit each other
                self._with_donors(self.jobs(one.options, one.folder))
        waiting = [Trial(self._study, trial._trial_id) for trial in self._trials() if trial.state == TrialState.RUNNING]
        running: list[_Running] = []
        try:
            while True:
                while free and (waiting or self._begun_trials() < trials):
                    one = self._start(waiting.pop(0) if waiting else self._study.ask(), free)
                    if one is not None:
                        running.append(one)
                        free -= one.workers
                    self._refuse_if_all_fail()
                for one in list(running):
                    if self._over(one):
                        running.remove(one)
                        free += one.workers
                        self._refuse_if_all_fail()
                yield Progress({one.trial.number: one.jobs for one in running}, self.over())
                if not running and not waiting and self._begun_trials() >= trials:
                    return
                time.sleep(poll_s)
        finally:
            for one in running:
                one.engine.close()

    def _start(self, trial: Any, free: int) -> _Running | None:
        """Start the runs of a trial; None if its options do not fit each other, so that it has failed."""
        options = [f"{dimension.name}={dimension.suggest(trial)}" for dimension in self.dimensions]
        try:
            jobs = self._with_donors(self.jobs(options, self._folder(trial.number)))
        except InputError as error:
            self._fail(trial, str(error))
            return None
        workers = min(len(jobs), free)
        known = set(self._trials()[trial.number].intermediate_values)
        return _Running(trial, jobs, workers, Local(workers, poll_s=0.0).run(jobs), known)

    def _with_donors(self, jobs: list[Job]) -> list[Job]:
        """The jobs of a trial, each with the runs of earlier trials as siblings whose pre-training is the same."""
        same = [[path for first, path in self._begun if first == before_fine_tuning(job.experiment)] for job in jobs]
        self._begun += [(before_fine_tuning(job.experiment), job.out) for job in jobs]
        return [
            dataclasses.replace(job, siblings=(*job.siblings, *paths)) for job, paths in zip(jobs, same, strict=True)
        ]

    def _over(self, one: _Running) -> bool:
        """Look after a trial; returns whether it is over, and Optuna knows how."""
        from optuna.trial import TrialState

        status = next(one.engine, None)
        failed = [job for job, code in status.ended.items() if code] if status else []
        failed = failed or ([] if status else [job for job in one.jobs if not job.done])
        if failed:
            one.engine.close()
            self._fail(one.trial, f"{failed[0].name}: {_last_line(failed[0])} (log: {log_path(failed[0])})")
            return True
        if status is None:
            found = [_summary(job).get(self.objective) for job in one.jobs]
            values = [float(value) for value in found if value is not None]
            if len(values) < len(found):
                self._fail(one.trial, f"{self.objective} was not measured")
            else:
                one.trial.set_user_attr("values", values)
                self._study.tell(one.trial, float(np.mean(values)))
            return True
        for step, value in self._intermediate(one.jobs):
            if step not in one.told:
                one.trial.report(value, step)
                one.told.add(step)
        if one.trial.should_prune():
            one.engine.close()
            self._study.tell(one.trial, state=TrialState.PRUNED)
            return True
        return False

    def _intermediate(self, jobs: Sequence[Job]) -> list[tuple[int, float]]:
        """(number of an evaluation, mean objective up to it), as far as all runs have come."""
        curves = []
        for job in jobs:
            rows = RunDir(job.out).read_rows("eval.csv")
            rows = [row for row in rows if None not in row.values()]  # without a line that is being written
            last = job.experiment.phases[-1].name
            ends = [number for number, row in enumerate(rows, 1) if row["phase"] == last]
            curves.append([summarise(rows[:end])[self.objective] for end in ends])
        means = (None if None in values else float(np.mean(values)) for values in zip(*curves, strict=False))
        return [(step, value) for step, value in enumerate(means) if value is not None]

    def _fail(self, trial: Any, why: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("why", why)
        self._study.tell(trial, state=TrialState.FAIL)

    def _refuse_if_all_fail(self) -> None:
        over = self.over()
        if len(over) >= FAILED_AT_FIRST and all(one.state == "failed" for one in over):
            raise RunError(
                f"the first {len(over)} trials have failed; the last: {over[-1].why}; correct the plan, and search in "
                "another --out"
            )

    def _begun_trials(self) -> int:
        from optuna.trial import TrialState

        return sum(trial.state != TrialState.WAITING for trial in self._trials())

    def _trials(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _folder(self, number: int) -> Path:
        return self.out / "trials" / f"{number:04d}"

    def _outcome(self, trial: Any) -> Outcome:
        from optuna.trial import TrialState

        state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")
        options = tuple(f"{dim.name}={trial.params[dim.name]}" for dim in self.dimensions if dim.name in trial.params)
        values = tuple(trial.user_attrs.get("values", ()))
        why = trial.user_attrs.get("why", "")
        return Outcome(trial.number, state, options, trial.value, values, why, self._folder(trial.number))


def best_first(outcomes: Sequence[Outcome], objective: str) -> list[Outcome]:
    """The complete trials, the best first."""
    complete = [(one.value, one.number, one) for one in outcomes if one.state == "complete" and one.value is not None]
    sign = -1 if OBJECTIVES[objective] == "maximize" else 1
    return [one for *_, one in sorted(complete, key=lambda found: (sign * found[0], found[1]))]


def _refuse_unmeasured(made: Sequence[Any], objective: str) -> None:
    for one in made:
        online = one.finetune is not None and one.finetune.online_steps > 0
        if one.measurement.eval_from == "nothing":
            raise InputError(f"with eval_from=nothing no {objective} is measured; set eval_from=env")
        if objective not in ("score_before", "wall_s") and not online:
            raise InputError(f"{one.method} has no fine-tuning here, so no {objective}; use --objective score_before")
        if objective == "score_before" and one.pretrain is None:
            raise InputError(f"{one.method} has no pre-training, so its score_before is that of an untrained policy")


def _drop_incomplete_line(file: Path) -> None:
    """Cut what a power cut or a full disk has left of a line; Optuna's journal could not be read any more."""
    if file.exists() and (raw := file.read_bytes()) and not raw.endswith(b"\n"):
        os.truncate(file, raw.rfind(b"\n") + 1)


def _summary(job: Job) -> dict[str, Any]:
    return json.loads((job.out / "summary.json").read_text())


def _last_line(job: Job) -> str:
    lines = log_path(job).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"

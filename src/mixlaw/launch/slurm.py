"""Stacks to the nodes of a Slurm cluster, as job arrays through submitit.

A job outlives its driver: kill the driver, or lose the connection to it, and its jobs go on. The
next launcher on the same folder finds those that are still queued or running and waits for them,
instead of submitting their runs again; their place in the queue is kept. Only `close`, which is
also what Ctrl-C comes to, cancels them. A driver holds an array of jobs by a claim, as a worker
holds a run, so that one that lives keeps its jobs to itself.

Before Slurm takes a node away (pre-emption, time limit) it warns the job; submitit then requeues
it, and it goes on from the checkpoints in the run folder.

submitit pickles the function that a job calls, and a requeue replaces that pickle. Ours holds one
path: the work itself and its outcome travel as JSON in `folder`. Nothing is unpickled here.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mixlaw.claims import Watch, Worker
from mixlaw.errors import MissingExtraError, TrainError
from mixlaw.files import write_text
from mixlaw.launch.slurm_queue import ENDED, GONE, Queue, cancel
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import attempt
from mixlaw.store import RunStore

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.core.utils import DelayedSubmission

ARRAY_JOBS = 1000  # Slurm's default MaxArraySize is 1001
TIME_OUTS = 100  # of one job: each brings it further, so only one that hangs has so many
HANDED_DOWN = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")  # which Slurm, and how it warns
CLOSE_SECONDS = 120  # Slurm kills 30 s (KillWait) after it asked
LEASE_SECONDS = 60  # a driver of another machine that is silent for so long is gone
JOBS = "jobs.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of Slurm. A work of several processes is one job on one node.

    Attributes:
        partition, account: None: the cluster's default.
        minutes: time limit of a job; one that reaches it is requeued and goes on.
        gpus_per_process: 0 on a cluster without GPUs.
        memory_gb: of a job, whatever its processes; None: the cluster's default.
        parallel: jobs of an array that may run at once.
        warning_seconds: before the time limit, when a job is told to end.
        extra: further parameters of sbatch, such as {"qos": "low", "exclusive": True}.
    """

    partition: str | None = None
    account: str | None = None
    minutes: int = 240
    gpus_per_process: int = 1
    cpus_per_process: int = 4
    memory_gb: float | None = None
    parallel: int = 16
    warning_seconds: int = 120
    extra: Mapping[str, str | int | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: TrainError: a job could never do anything."""
        counts = (self.minutes, self.cpus_per_process, self.parallel, self.gpus_per_process + 1)
        if min(counts) < 1:
            raise TrainError(
                f"Slurm cannot run {self}: minutes, cpus_per_process and parallel are at least 1, "
                "gpus_per_process at least 0"
            )
        if self.warning_seconds > self.minutes * 60 / 2:
            raise TrainError(
                f"jobs of {self.minutes} min would be told to end {self.warning_seconds} s before, "
                "so they could do little but be requeued; raise minutes, or lower warning_seconds "
                "to half the time at most"
            )


@dataclass(frozen=True)
class _Job:
    """A job that is in Slurm's queue as far as known.

    Attributes:
        array: its name in Slurm, which it shares with the others of its array.
        work: name of its files.
        runs: ids of those it trains.
    """

    array: str
    work: str
    runs: frozenset[str]


@dataclass
class _Ticket:
    """The jobs that a work still waits for: its own and those taken over from a dead driver."""

    jobs: set[str]
    outcome: Outcome = field(default_factory=Outcome)


class SlurmLauncher:
    """A `Launcher` on a Slurm cluster; runs where `sbatch` does.

    Args:
        folder: for works, outcomes and logs; every node must see it, as well as this Python.
        look_seconds: between looks at Slurm's queue; `poll` in between costs nothing.
    Raises: MissingExtraError: submitit is not installed. TrainError: no Slurm on this machine.
    """

    def __init__(
        self, folder: str | Path, options: SlurmOptions | None = None, *, look_seconds: float = 15
    ):
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise MissingExtraError("submitit", "slurm") from None
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise TrainError(
                "the commands of Slurm (sbatch, srun) are not on this machine's path; "
                "run this on a login node of the cluster, or choose another launcher"
            )
        self.folder = Path(folder).absolute()
        self.options = options or SlurmOptions()
        self.slots = self.options.parallel
        self._works = self.folder / "works"
        self._works.mkdir(parents=True, exist_ok=True)
        self._arrays = RunStore(self.folder / "arrays")
        self._driver = Worker(self._arrays, lease_seconds=LEASE_SECONDS)
        self._queue = Queue(look_seconds)
        self._tickets: dict[str, _Ticket] = {}
        self._suspects: dict[str, str] = {}
        self._unwanted: set[str] = set()  # to cancel
        self._cancelled: set[str] = set()  # they may still be ending
        left = self._left_over()
        self._driver.__enter__()
        self._jobs = self._take_over(left)
        self._adopted = dict(self._jobs)

    def submit(self, works: Sequence[Work]) -> list[str]:
        """One array per number of processes. Runs of jobs that a dead driver left are not
        submitted again: the ticket waits for those jobs.

        Raises: TrainError: Slurm refused.
        """
        tickets: list[str] = []
        shapes: dict[int, list[tuple[str, Work]]] = {}
        for work in works:
            runs = {spec.run_id for spec in work.stack}
            old = {job: left for job, left in self._adopted.items() if left.runs & runs}
            taken = frozenset().union(*(left.runs for left in old.values()))
            rest = tuple(spec for spec in work.stack if spec.run_id not in taken)
            tickets.append(uuid.uuid4().hex[:12])
            self._tickets[tickets[-1]] = _Ticket(set(old))
            if rest:
                new = Work(work.swarm, rest)
                shapes.setdefault(new.processes, []).append((tickets[-1], new))
        for processes, of_one_shape in shapes.items():
            for first in range(0, len(of_one_shape), ARRAY_JOBS):
                self._submit_array(processes, of_one_shape[first : first + ARRAY_JOBS])
        return tickets

    def poll(self) -> dict[str, Outcome]:
        """Tickets of works that ended since the last poll.

        Raises: TrainError: Slurm has not answered for ten minutes.
        """
        self._cancel_unwanted()
        if not self._jobs or not self._queue.due():
            return {}
        # The queue first: a job that is gone from it has written its outcome before.
        queue = self._queue.look()
        written = {file.name for file in self._works.iterdir()}
        for job_id, job in list(self._jobs.items()):
            if f"{job.work}.outcome.json" in written:
                self._end(job_id, self._outcome(job))
            elif queue is not None:
                self._suspect(job_id, queue.get(job_id, GONE).state)
        ended = [name for name, ticket in self._tickets.items() if not ticket.jobs]
        return {name: self._tickets.pop(name).outcome for name in ended}

    def cancel(self, ticket: str) -> None:
        """Cancel the jobs of this ticket that no other ticket waits for, with the next `poll` or
        `close`: hundreds are cancelled by one call of Slurm."""
        if (cancelled := self._tickets.pop(ticket, None)) is None:
            return
        shared = set().union(*(other.jobs for other in self._tickets.values()))
        for job_id in cancelled.jobs - shared:
            self._give_up(job_id)

    def close(self) -> None:
        """Cancel all jobs, also those taken over, and wait until none runs.

        Raises: TrainError: Slurm did not end them within two minutes.
        """
        try:
            for job_id in list(self._jobs):
                self._give_up(job_id)
            self._tickets.clear()
            self._cancel_unwanted()
            ending, self._cancelled = self._cancelled, set()
            self._wait_for_end(ending)
        finally:
            self._driver.__exit__()

    def _wait_for_end(self, ending: set[str]) -> None:
        started = time.monotonic()
        while ending:
            queue = self._queue.look()
            if queue is not None:
                ending = {j for j in ending if queue.get(j, GONE).state not in ENDED}
            if ending and time.monotonic() - started > CLOSE_SECONDS:
                raise TrainError(
                    f"Slurm did not end {len(ending)} jobs within {CLOSE_SECONDS} s: "
                    f"{', '.join(sorted(ending)[:5])}; look at them with squeue --me"
                )
            if ending:
                time.sleep(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _left_over(self) -> dict[str, _Job]:
        """Jobs that other drivers on this folder submitted and that have not ended."""
        storage = self._arrays.storage
        contents = storage.read_all([f"{array}/{JOBS}" for array in storage.folders_with(JOBS)])
        if not contents:
            return {}
        queue = self._queue.look()
        if queue is None:
            raise TrainError("squeue does not answer; is Slurm's controller running?")
        runs = {name.partition("/")[0]: json.loads(data) for name, data in contents.items()}
        left = {}
        for job_id, (array, state) in queue.items():
            if array in runs and state not in ENDED:
                index = int(job_id.partition("_")[2] or 0)  # a lone job has none
                job = _Job(array, f"{array}-{index}", frozenset(runs[array][index]))
                if not self._outcome_file(job).exists():
                    left[job_id] = job
        return left

    def _take_over(self, left: Mapping[str, _Job]) -> dict[str, _Job]:
        """Those whose driver is gone."""
        arrays = sorted({job.array for job in left.values()})
        mine = self._driver.claim(arrays)
        if len(mine) < len(arrays):
            log.warning("looking whether the driver of the jobs in Slurm's queue lives")
            watch = Watch(self._arrays, lease_seconds=LEASE_SECONDS)
            first = {beat.worker: beat.beat for beat in watch.heartbeats()}
            # Every one beats before long, or is found dead.
            while any(first.get(beat.worker) == beat.beat for beat in watch.heartbeats()):
                time.sleep(0.5)
            mine = self._driver.claim(arrays)
        return {job_id: job for job_id, job in left.items() if job.array in mine}

    def _submit_array(self, processes: int, batch: Sequence[tuple[str, Work]]) -> None:
        from submitit.core import utils
        from submitit.helpers import clean_env

        array = f"mixlaw-{uuid.uuid4().hex[:12]}"
        jobs = []
        for index, (_, work) in enumerate(batch):
            name = f"{array}-{index}"
            jobs.append(_Job(array, name, frozenset(spec.run_id for spec in work.stack)))
            write_text(self._works / f"{name}.work.json", work.to_json())
        # Before Slurm has them: whenever this driver is killed, the next finds them by their name.
        record = json.dumps([sorted(job.runs) for job in jobs])
        self._arrays.storage.write(f"{array}/{JOBS}", record.encode())
        self._driver.claim([array])
        try:
            executor = self._executor(processes, array)
            # A driver that is itself a job of Slurm must not hand down its own resources.
            kept = {name: os.environ[name] for name in HANDED_DOWN if name in os.environ}
            with clean_env(), utils.environment_variables(**kept), executor.batch():
                made = [executor.submit(_Call(str(self._works / job.work))) for job in jobs]
        except (utils.FailedJobError, utils.FailedSubmissionError) as error:
            remedy = "mend the options of the launcher"
            if "limit" in str(error):
                remedy = (
                    "if they are too many to be submitted at once, raise stack_size, so that a job "
                    "trains more runs, or lower parallel; else " + remedy
                )
            raise TrainError(f"Slurm refused {len(jobs)} jobs ({error}); {remedy}") from error
        except BaseException:  # an interrupt, perhaps when Slurm had them already
            cancel(f"--name={array}")
            raise
        self._jobs |= zip((job.job_id for job in made), jobs, strict=True)
        for job, (ticket, _) in zip(made, batch, strict=True):
            self._tickets[ticket].jobs.add(job.job_id)

    def _executor(self, processes: int, name: str) -> SlurmExecutor:
        from submitit import SlurmExecutor

        options = self.options
        cpus = options.cpus_per_process * processes
        given: dict[str, str | int | None] = {
            "partition": options.partition,
            "account": options.account,
        }
        if options.gpus_per_process:
            given["gpus_per_node"] = options.gpus_per_process * processes
        if options.memory_gb is not None:
            given["mem"] = f"{round(options.memory_gb * 1024)}M"
        executor = SlurmExecutor(self.folder / "submitit", max_num_timeout=TIME_OUTS)
        executor.update_parameters(
            time=options.minutes,
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=cpus,
            srun_args=[f"--cpus-per-task={cpus}"],  # srun no longer takes it from sbatch
            array_parallelism=options.parallel,
            signal_delay_s=options.warning_seconds,
            additional_parameters={"requeue": True, **options.extra, "job_name": name},
            **{name: value for name, value in given.items() if value is not None},
        )
        return executor

    def _suspect(self, job_id: str, state: str) -> None:
        """Believe only at the second look that a job died: a shared folder shows files late, and
        a job that is started again passes through states of the dead."""
        if state not in ENDED:
            self._suspects.pop(job_id, None)
        elif job_id not in self._suspects:
            self._suspects[job_id] = state
        else:
            file = self.folder / "submitit" / f"{job_id}_0_log.err"
            why = ENDED[self._suspects[job_id]]
            self._end(job_id, Outcome(f"Slurm's job {job_id}: {why} (its log: {file})"))

    def _end(self, job_id: str, outcome: Outcome) -> None:
        self._drop(job_id)
        for ticket in self._tickets.values():
            if job_id in ticket.jobs:
                ticket.jobs.remove(job_id)
                if outcome != Outcome():
                    ticket.outcome = outcome

    def _drop(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._suspects.pop(job_id, None)
        self._adopted.pop(job_id, None)

    def _give_up(self, job_id: str) -> None:
        """Note a job to cancel, unless another driver, to which this one seemed gone, has it."""
        if self._driver.holds(self._jobs[job_id].array):
            self._unwanted.add(job_id)
        self._drop(job_id)

    def _cancel_unwanted(self) -> None:
        """End what nobody waits for any more, queued or running."""
        if self._unwanted:
            cancel(*sorted(self._unwanted))
            self._cancelled |= self._unwanted
            self._unwanted.clear()

    def _outcome_file(self, job: _Job) -> Path:
        return self._works / f"{job.work}.outcome.json"

    def _outcome(self, job: _Job) -> Outcome:
        return Outcome.from_json(self._outcome_file(job).read_bytes())


@dataclass
class _Call:
    """What a job runs: a work, by the path of its files less their suffix."""

    path: str
    ends: bool = False

    def __call__(self) -> None:
        outcome = attempt(Work.from_json(Path(f"{self.path}.work.json").read_bytes()))
        if self.ends:
            # What went wrong was the end: requeueing signals this job while it still requeues.
            sys.exit("interrupted by Slurm")
        write_text(Path(f"{self.path}.outcome.json"), outcome.to_json())
        if outcome.reason is not None:
            sys.exit(f"error: {outcome.reason}")  # so that Slurm, too, shows that it failed

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues before Slurm ends the job: the same; it resumes by itself."""
        from submitit.core.utils import DelayedSubmission

        self.ends = True
        return DelayedSubmission(_Call(self.path))

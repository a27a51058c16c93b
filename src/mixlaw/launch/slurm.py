"""Stacks to the nodes of a Slurm cluster, as job arrays through submitit.

A job outlives its driver: kill the driver, or lose the connection to it, and its jobs go on. The
next launcher on the same folder finds those that are still queued or running and waits for them,
instead of submitting their runs again; their place in the queue is kept. Only `close`, which is
also what Ctrl-C comes to, cancels them.

Before Slurm takes a node away (pre-emption, time limit) it warns the job; submitit then requeues
it, and it goes on from the checkpoints in the run folder.

submitit pickles the function that a job calls, and a requeue replaces that pickle. Ours holds one
path: the work itself and its outcome travel as JSON in `folder`. Nothing is unpickled here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mixlaw.errors import MissingExtraError, TrainError
from mixlaw.files import read_json, write_json, write_text
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import attempt

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.core.utils import DelayedSubmission

ARRAY_JOBS = 1000  # Slurm's default MaxArraySize is 1001
TIME_OUTS = 100  # of one job: each brings it further, so only one that hangs has so many
SILENT_SECONDS = 600  # without an answer of Slurm; a controller that restarts takes less
HANDED_DOWN = ("SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL")  # which Slurm, and how it warns
CLOSE_SECONDS = 120  # Slurm kills 30 s (KillWait) after it asked

# Any other state is of a job that waits, runs or will be started again.
ENDED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "it was cancelled",
    "COMPLETED": "it left no result",
    "DEADLINE": "it missed its deadline",
    "FAILED": "it failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it ran out of memory; raise memory_gb or lower stack_size",
    "PREEMPTED": "it was pre-empted",
    "TIMEOUT": "it reached its time limit",
    "GONE": "it left the queue without a result",
}


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
    """A job that is in Slurm's queue as far as known, and the ids of the runs it trains."""

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
        self._queue = _Queue(look_seconds)
        self._tickets: dict[str, _Ticket] = {}
        self._suspects: dict[str, str] = {}
        self._unwanted: set[str] = set()  # to cancel
        self._cancelled: set[str] = set()  # they may still be ending
        self._jobs = self._left_over()
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
        self._scancel_unwanted()
        if not self._jobs or not self._queue.due():
            return {}
        # The queue first: a job that is gone from it has written its outcome before.
        states = self._queue.look()
        written = {file.name for file in self._works.iterdir()}
        for job_id, job in list(self._jobs.items()):
            if f"{job.work}.outcome.json" in written:
                self._end(job_id, self._outcome(job))
            elif states is not None:
                self._suspect(job_id, states.get(job_id, "GONE"))
        ended = [name for name, ticket in self._tickets.items() if not ticket.jobs]
        return {name: self._tickets.pop(name).outcome for name in ended}

    def cancel(self, ticket: str) -> None:
        """Cancel the jobs of this ticket that no other ticket waits for, with the next `poll` or
        `close`: hundreds are cancelled by one call of Slurm."""
        if (cancelled := self._tickets.pop(ticket, None)) is None:
            return
        shared = set().union(*(other.jobs for other in self._tickets.values()))
        for job_id in cancelled.jobs - shared:
            self._drop(job_id)
            self._unwanted.add(job_id)

    def close(self) -> None:
        """Cancel all jobs, also those taken over, and wait until none runs.

        Raises: TrainError: Slurm did not end them within two minutes.
        """
        for job_id in list(self._jobs):
            self._drop(job_id)
            self._unwanted.add(job_id)
        self._tickets.clear()
        self._scancel_unwanted()
        ending, self._cancelled = self._cancelled, set()
        started = time.monotonic()
        while ending:
            states = self._queue.look()
            if states is not None:
                ending = {j for j in ending if states.get(j, "GONE") not in ENDED}
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
        """Jobs that an earlier driver on this folder submitted and that have not ended."""
        jobs = {}
        for file in self._works.glob("*.job.json"):
            record = read_json(file)
            job = _Job(record["work"], frozenset(record["runs"]))
            if not self._outcome_file(job).exists():
                jobs[file.name.removesuffix(".job.json")] = job
        if not jobs:
            return {}
        states = self._queue.look()
        if states is None:
            raise TrainError("squeue does not answer; is Slurm's controller running?")
        return {j: job for j, job in jobs.items() if states.get(j, "GONE") not in ENDED}

    def _submit_array(self, processes: int, batch: Sequence[tuple[str, Work]]) -> None:
        from submitit.core import utils
        from submitit.helpers import clean_env

        names = [uuid.uuid4().hex for _ in batch]
        for name, (_, work) in zip(names, batch, strict=True):
            write_text(self._works / f"{name}.work.json", work.to_json())
        try:
            executor = self._executor(processes)
            # A driver that is itself a job of Slurm must not hand down its own resources.
            kept = {name: os.environ[name] for name in HANDED_DOWN if name in os.environ}
            with clean_env(), utils.environment_variables(**kept), executor.batch():
                made = [executor.submit(_Call(str(self._works / name))) for name in names]
        except (utils.FailedJobError, utils.FailedSubmissionError) as error:
            raise TrainError(
                f"Slurm refused the jobs ({error}); mend the options of the launcher"
            ) from error
        for job, name, (ticket, work) in zip(made, names, batch, strict=True):
            runs = [spec.run_id for spec in work.stack]
            write_json(self._works / f"{job.job_id}.job.json", {"work": name, "runs": runs})
            self._jobs[job.job_id] = _Job(name, frozenset(runs))
            self._tickets[ticket].jobs.add(job.job_id)

    def _executor(self, processes: int) -> SlurmExecutor:
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
            job_name="mixlaw",
            time=options.minutes,
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=cpus,
            srun_args=[f"--cpus-per-task={cpus}"],  # srun no longer takes it from sbatch
            array_parallelism=options.parallel,
            signal_delay_s=options.warning_seconds,
            additional_parameters={"requeue": True, **options.extra},
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
            log = self.folder / "submitit" / f"{job_id}_0_log.err"
            why = ENDED[self._suspects[job_id]]
            self._end(job_id, Outcome(f"Slurm's job {job_id}: {why} (its log: {log})"))

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

    def _scancel_unwanted(self) -> None:
        """End what nobody waits for any more, queued or running."""
        if not self._unwanted:
            return
        # An interrupt first: it lets a worker give its claims back.
        for signal in (["--signal=INT"], []):
            command = ["scancel", "--quiet", *signal, *sorted(self._unwanted)]
            subprocess.run(command, capture_output=True, check=False)
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


class _Queue:
    """Slurm's queue, asked of its controller: `sacct` needs a database that not every cluster
    has, and lags behind."""

    def __init__(self, look_seconds: float):
        self.look_seconds = look_seconds
        self.looked_at = time.monotonic()
        self.silent_since: float | None = None

    def due(self) -> bool:
        return time.monotonic() - self.looked_at >= self.look_seconds

    def look(self) -> dict[str, str] | None:
        """State by job id of all jobs of this user; None: no answer.

        Raises: TrainError: no answer for long.
        """
        self.looked_at = time.monotonic()
        command = ["squeue", "--me", "--array", "--states=all", "--noheader"]
        answer = subprocess.run(
            [*command, "--format=%F|%K|%T"], capture_output=True, text=True, check=False
        )
        if answer.returncode == 0:
            self.silent_since = None
            return dict(map(_id_and_state, answer.stdout.splitlines()))
        self.silent_since = self.silent_since or self.looked_at
        if self.looked_at - self.silent_since > SILENT_SECONDS:
            raise TrainError(
                f"Slurm has not answered for {SILENT_SECONDS} s ({answer.stderr.strip()}); its "
                "jobs go on; run the same command again when squeue works"
            )
        return None


def _id_and_state(line: str) -> tuple[str, str]:
    """ "12|3|RUNNING" -> ("12_3", "RUNNING"); "12|N/A|RUNNING" -> ("12", "RUNNING")."""
    job_id, index, state = line.strip().split("|")
    return (job_id if index == "N/A" else f"{job_id}_{index}"), state

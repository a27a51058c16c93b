"""Works to a Ray cluster: one Ray task per work, on as many machines as the cluster has."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from mixlaw import __version__
from mixlaw.errors import CorpusError, MissingExtraError, MixlawError, StorageError, TrainError
from mixlaw.launch.driver import SWARM_FILE
from mixlaw.launch.work import Outcome, Work
from mixlaw.launch.worker import GRACE_SECONDS, attempt
from mixlaw.storage import open_storage

# Ray prints its daemons' last words to the driver's screen also with log_to_driver off, through a
# filter that it reads from the environment when it is imported. What matters of them is in the
# reasons that `poll` gives.
_QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "^", "RAY_USAGE_STATS_ENABLED": "0"}
if "ray" not in sys.modules:
    for _name, _value in _QUIET.items():
        os.environ.setdefault(_name, _value)
try:
    import ray
    from ray import exceptions as ray_errors
except ImportError:
    raise MissingExtraError("ray", "ray") from None

# Results are a line of JSON and never reach the object store; this is near the least Ray takes.
OBJECT_STORE_BYTES = 80 * 2**20
FORCED_SECONDS = 10.0
KNOCK_SECONDS = 10.0
ROOM_SECONDS = 10.0  # between looks whether queued works still fit somewhere


@dataclass(frozen=True)
class Resources:
    """What Ray reserves on one machine for a work.

    Attributes:
        cpus: cores per process.
        gpus: of a work of one process; below 1, several works share a GPU (their memory must fit:
            lower stack_size). None: 1 on GPUs, 0 on CPUs. A work of n > 1 processes takes n whole
            GPUs, or none if this is 0.
    """

    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        """Raises: TrainError: negative, or neither whole nor a share of one GPU."""
        gpus = self.gpus or 0
        if not self.cpus >= 0 or not gpus >= 0 or (gpus > 1 and gpus != int(gpus)):
            raise TrainError(
                f"a work cannot reserve {self.cpus:g} cores and {gpus:g} GPUs: cores are >= 0, "
                "GPUs a share (0.25 lets four works share one GPU) or a whole number"
            )


@dataclass(frozen=True)
class _Task:
    """A work with Ray: a reference to its result, its name, and what it needs of one machine."""

    reference: Any
    name: str
    need: Mapping[str, float]


class RayLauncher:
    """Trains each work as a Ray task on whichever machine of a cluster has room.

    Lost work is resubmitted by `launch.driver`, never by Ray (`max_retries=0`). Only the driver
    can leave out the runs of a stack that have results, knows whether another worker holds them by
    now, counts attempts and tells people why; and two counters would multiply: three attempts of
    four tries each, of which the first three would start blindly before the lost claims lapse.
    The task's result lives with the driver, so a node that dies later takes nothing with it.
    Each has a process of its own: after an error of CUDA no other would succeed in it.

    All machines need the same mixlaw, and the run folder and corpus under the names that the
    driver uses: a shared file system, or for the run folder a bucket. A task that finds them
    missing says so and on which node.

    When the driver dies, Ray ends its tasks (measured: within a second; through `ray://` after
    the 30 s in which a client may come back), and the next driver goes on from the checkpoints.
    When the cluster's head node dies and stays away for 60 s, Ray ends the driver's process.

    Args:
        address: "auto" (the cluster of this machine), "host:port", or "ray://host:port" from
            outside the cluster. None: what RAY_ADDRESS says, else a cluster of this machine that
            lives as long as this launcher. A process has one Ray connection: if it has one
            already, leave address out, and it is used and left open.
        device: "cpu"; "cuda"; "auto": GPUs if the cluster has any now. It stays with that: when
            all GPUs are lost, works are refused, since CPUs give other last bits.
        resources: reserved for each work.
        autoscaling: the cluster may grow nodes that it lacks now: a work that fits on none of
            today's nodes waits instead of being refused.
    Raises: MissingExtraError: Ray is not installed. TrainError: no cluster answers there.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        device: str = "auto",
        resources: Resources = Resources(),
        autoscaling: bool = False,
    ):
        self.autoscaling = autoscaling
        self._connected = _connect(address)
        with _connection():
            on_gpus = device == "cuda" or any(node.get("GPU", 0) for node in _nodes())
        self._cpus = resources.cpus
        self._gpus = float(on_gpus) if resources.gpus is None else resources.gpus
        if device == "cpu":
            self._gpus = 0.0
        self._task = ray.remote(max_retries=0, max_calls=1)(_train)
        self._running: dict[str, _Task] = {}  # by ticket
        self._refused: dict[str, Outcome] = {}
        self._cancelled: dict[Any, float] = {}  # reference -> when it is ended by force
        self._homeless: set[str] = set()  # tickets that fitted on no node at the last look
        self._looked = time.monotonic()
        self._numbers = itertools.count(1)

    @property
    def slots(self) -> int:
        """Works of one process that today's nodes can hold at once; at least 1."""
        with _connection():
            nodes = list(_nodes())
        need = self._need(1)
        counts = [
            min((int(node.get(name, 0) / n) for name, n in need.items() if n), default=1)
            for node in nodes
        ]
        return max(1, sum(counts))

    def submit(self, works: Sequence[Work]) -> list[str]:
        """Queue works, the costliest first; returns their tickets at once.

        Raises: TrainError: the connection to the cluster is lost; StorageError: the run folder
            cannot be read.
        """
        with _connection():
            nodes = list(_nodes())
            described = {root: _described(root) for root in {w.swarm.store.root for w in works}}
            tickets = {f"ray-{next(self._numbers)}": work for work in works}
            for ticket, work in sorted(tickets.items(), key=lambda entry: -entry[1].flops):
                self._start(ticket, work, nodes, described[work.swarm.store.root])
        return list(tickets)

    def _start(
        self, ticket: str, work: Work, nodes: Sequence[Mapping[str, float]], described: bool
    ) -> None:
        need = self._need(work.processes)
        if not self.autoscaling and not any(_fits(need, node) for node in nodes):
            self._refused[ticket] = _no_room(work.name, need, nodes)
            return
        task = self._task.options(
            name=f"mixlaw {work.name}",
            num_cpus=need["CPU"],
            num_gpus=need["GPU"],
            scheduling_strategy="SPREAD",  # two stacks run fastest on two machines
        )
        reference = task.remote(work.to_json(), described, __version__)
        self._running[ticket] = _Task(reference, work.name, need)

    def _need(self, processes: int) -> dict[str, float]:
        """Ray's names -> amounts, for a work of so many processes."""
        gpus = processes if processes > 1 and self._gpus else self._gpus
        return {"CPU": self._cpus * processes, "GPU": gpus}

    def poll(self) -> dict[str, Outcome]:
        """Tickets of works that ended since the last poll. Does not wait.

        Raises: TrainError: the connection to the cluster is lost.
        """
        ended: dict[str, Outcome] = {}
        if self._running or self._cancelled:
            with _connection():
                self._force_cancelled()
                left = set(_unended([task.reference for task in self._running.values()]))
                for ticket, task in list(self._running.items()):
                    if task.reference not in left:
                        ended[ticket] = _outcome(self._running.pop(ticket).reference)
                self._refuse_homeless()
        refused, self._refused = self._refused, {}
        return refused | ended

    def _force_cancelled(self) -> None:
        """What is frozen does not hear that it is cancelled, and would keep its place."""
        for reference in _unended(list(self._cancelled)):
            if time.monotonic() > self._cancelled[reference]:
                self._cancelled[reference] = math.inf
                ray.cancel(reference, force=True)

    def _refuse_homeless(self) -> None:
        """Works whose last fitting node went away would wait for ever. They are refused at the
        second look: those that trained on it end by themselves, and can be tried again."""
        if self.autoscaling or time.monotonic() - self._looked < ROOM_SECONDS:
            return
        self._looked, nodes = time.monotonic(), list(_nodes())
        homeless = {
            ticket: task
            for ticket, task in self._running.items()
            if not any(_fits(task.need, node) for node in nodes)
        }
        for ticket in homeless.keys() & self._homeless:
            self.cancel(ticket)
            self._refused[ticket] = _no_room(homeless[ticket].name, homeless[ticket].need, nodes)
        self._homeless = homeless.keys() - self._refused.keys()

    def cancel(self, ticket: str) -> None:
        """Interrupt this work, if it still runs, so that it lets go of its runs and ends. `poll`
        will not tell of it; later calls end it by force if it has not ended then."""
        self._refused.pop(ticket, None)
        task = self._running.pop(ticket, None)
        if task is not None:
            self._cancelled[task.reference] = time.monotonic() + GRACE_SECONDS + 1
            with contextlib.suppress(TrainError), _connection():  # a lost cluster ends it, too
                ray.cancel(task.reference, force=False)

    def close(self) -> None:
        """End all that still runs, and the cluster if this launcher started it."""
        for ticket in list(self._running):
            self.cancel(ticket)
        try:
            with contextlib.suppress(TrainError), _connection():
                for reference in _unended(list(self._cancelled), GRACE_SECONDS + 1):
                    ray.cancel(reference, force=True)
                _unended(list(self._cancelled), FORCED_SECONDS)
        finally:
            self._cancelled.clear()
            if self._connected:
                ray.shutdown()
                self._connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _connect(address: str | None) -> bool:
    """Connect to a cluster, or start one; False: this process had a connection already."""
    if ray.is_initialized():
        if address is not None:
            raise TrainError(
                f"cannot connect to the Ray cluster {address}: this process is connected to one "
                "already; leave out the address to use that, or call ray.shutdown() first"
            )
        return False
    address = address or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        if address is not None:
            _knock(address)
        with warnings.catch_warnings(action="ignore"):  # they come with an error
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else own),
            )
    except ImportError:
        raise MissingExtraError("grpcio", "ray") from None  # ray:// needs it
    except (OSError, RuntimeError, ValueError, ray_errors.RayError) as error:
        ray.shutdown()
        why = " ".join(str(error).split())[-300:]  # of a trace, the end tells most
        raise TrainError(
            f"cannot connect to the Ray cluster {address or 'of this machine'}: {why}; is it up "
            "(`ray status` on its head node), and are Ray and Python there of the versions here?"
        ) from error
    return True


def _knock(address: str) -> None:
    """Raises: OSError: nobody listens at host:port; Ray itself would try for over five minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), KNOCK_SECONDS).close()


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Raises: TrainError: instead of what Ray raises when its cluster went away."""
    try:
        if not ray.is_initialized():
            raise ConnectionError("it was closed")
        yield
    except (ConnectionError, ray_errors.RayError) as error:
        raise TrainError(
            f"the connection to the Ray cluster is lost ({_first_line(error)}); finished runs are "
            "kept, and the same command goes on from the last checkpoints once the cluster is back"
        ) from error


def _nodes() -> Iterator[Mapping[str, float]]:
    """Resources of each living node."""
    return (node["Resources"] for node in ray.nodes() if node["Alive"])


def _fits(need: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in need.items())


def _amounts(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs"


def _train(work_json: str, described: bool, version: str) -> str:
    """The Ray task: train a work; returns its Outcome as JSON."""
    host = socket.gethostname()
    if not ray.get_gpu_ids():
        # Ray leaves the devices visible to a task that reserved none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        if version != __version__:
            raise TrainError(
                f"mixlaw is {__version__} here and {version} where the swarm was started, and "
                "two versions may train to different losses; install the same on all nodes"
            )
        work = Work.from_json(work_json)
        root = work.swarm.store.root
        if described and not _described(root):
            raise TrainError(
                f"the run folder {root} has no {SWARM_FILE} here, so it is not the one that the "
                "driver sees; it must be on a file system that all nodes share, or in a bucket"
            )
        outcome = attempt(work)
    except MixlawError as error:
        outcome = Outcome(str(error), error)
    if outcome.error is not None:
        error = _on_node(outcome.error, host)
        outcome = Outcome(str(error), error)
    return outcome.to_json()


def _described(root: str) -> bool:
    """Whether a run folder tells what to train in it, as the driver makes it do."""
    return open_storage(root).read(SWARM_FILE) is not None


def _on_node(error: MixlawError, host: str) -> MixlawError:
    """The same error, saying where: what is there on one node may lack on another."""
    if isinstance(error, MissingExtraError):
        return MissingExtraError(f"{error.package} (on node {host})", error.extra)
    told = f"on node {host}: {error}"
    if isinstance(error, CorpusError | StorageError):
        told += " (every node needs the corpus and the run folder under the driver's names)"
    return type(error)(told)


def _unended(references: list[Any], seconds: float = 0) -> list[Any]:
    """Of some tasks, those that wait or run after so long. Of the others Ray knows how they ended,
    that they were interrupted, or that their processes are gone."""
    count = len(references)
    return ray.wait(references, num_returns=count, timeout=seconds)[1] if count else []


def _outcome(reference: Any) -> Outcome:
    """What became of a task that ended."""
    try:
        return Outcome.from_json(ray.get(reference))
    except ray_errors.NodeDiedError:
        return Outcome("the node that trained it died")
    except ray_errors.OutOfMemoryError:
        return Outcome("its node ran out of memory and Ray ended it; lower stack_size")
    except ray_errors.WorkerCrashedError:
        return Outcome(
            "its process died (killed, crashed, or stuck; out of memory is the usual reason, then "
            "lower stack_size)"
        )
    except (ray_errors.RuntimeEnvSetupError, ray_errors.TaskUnschedulableError) as error:
        return _refusal(f"Ray cannot start the work: {_first_line(error)}")
    except ray_errors.RayTaskError as error:
        if "failed to import on the worker" not in str(error):
            return Outcome(f"{type(error.cause).__name__}: {_first_line(error.cause)}")
        return _refusal(
            "a node of the Ray cluster cannot import mixlaw.launch.ray; install mixlaw "
            f"{__version__} with the extras 'train' and 'ray' on all nodes"
        )
    except ray_errors.RayError as error:
        return Outcome(f"{type(error).__name__}: {_first_line(error)}")


def _no_room(name: str, need: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> Outcome:
    return _refusal(
        f"{name} needs {_amounts(need)} on one machine, but the living nodes of the Ray cluster "
        f"have {'; '.join(sorted(set(map(_amounts, nodes)))) or 'nothing'}; reserve less, add a "
        "larger node, or say that the cluster is autoscaling"
    )


def _refusal(message: str) -> Outcome:
    return Outcome(message, TrainError(message))


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

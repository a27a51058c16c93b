"""Work for launchers: one stack to train, what became of it, and what a launcher is.

A launcher brings works to machines. It knows no run folder and no claims: whether a run is done is
written there by the worker and read there by the driver, so a launcher may lose or repeat a work.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from mixlaw import errors
from mixlaw.errors import MissingExtraError, MixlawError, StorageError, TrainError
from mixlaw.files import parse_json
from mixlaw.runs import RunSpec

if TYPE_CHECKING:
    from mixlaw.claims import Worker
    from mixlaw.store import RunStore


class Speed(Protocol):
    """What is read of a swarm's hardware settings here."""

    @property
    def device(self) -> str: ...
    @property
    def lease_seconds(self) -> float: ...
    @property
    def stuck_seconds(self) -> float | None: ...


class Trainable(Protocol):
    """A swarm, as launchers, workers and the driver see it; `train.Swarm` is the one of mixlaw.

    Plain data: `from_dict(to_dict())` on another machine gives an equal swarm. Of a dict, "runs" is
    the URL of the run folder.
    """

    @property
    def store(self) -> RunStore: ...
    @property
    def hardware(self) -> Speed: ...
    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self: ...
    def unfinished(self, specs: Sequence[RunSpec], *, workers: int = 1) -> list[list[RunSpec]]: ...
    def steps(self, stack: list[RunSpec]) -> int: ...
    def tokens_per_step(self, stack: list[RunSpec]) -> int: ...
    def flops(self, stack: list[RunSpec]) -> float: ...
    def processes(self, stack: list[RunSpec]) -> int: ...
    def train(self, stack: list[RunSpec], worker: Worker) -> None: ...


@dataclass(frozen=True)
class Work:
    """One stack to train; a launcher runs it with `launch.worker`."""

    swarm: Trainable
    stack: tuple[RunSpec, ...]

    @property
    def name(self) -> str:
        """For people: "8 x 55k"."""
        return stack_name(self.stack)

    @property
    def processes(self) -> int:
        """GPUs (on a CPU: cores) that it takes, all on one machine."""
        return self.swarm.processes(list(self.stack))

    @property
    def flops(self) -> float:
        return self.swarm.flops(list(self.stack))

    def to_json(self) -> str:
        stack = [spec.to_dict() for spec in self.stack]
        return json.dumps({"swarm": swarm_to_dict(self.swarm), "stack": stack})

    @classmethod
    def from_json(cls, text: str | bytes) -> Work:
        """Raises: TrainError: not written by `to_json`, or the swarm's class is not found here."""
        with readable("this work"):
            data = parse_json(text)
            stack = tuple(RunSpec.from_dict(spec) for spec in data["stack"])
            return cls(swarm_from_dict(data["swarm"]), stack)


@dataclass(frozen=True)
class Outcome:
    """How a work ended.

    Attributes:
        reason: why it was lost, one line; None: it ended well (its runs have results, or another
            worker holds them). A lost work is worth another attempt.
        error: what a user must mend first; then no attempt is worth it.
    """

    reason: str | None = None
    error: MixlawError | None = None

    def to_json(self) -> str:
        error = self.error
        if error is None:
            return json.dumps({"reason": self.reason})
        given = [error.package, error.extra] if isinstance(error, MissingExtraError) else None
        kind = next(c.__name__ for c in type(error).__mro__ if hasattr(errors, c.__name__))
        return json.dumps({"reason": self.reason, "kind": kind, "given": given or [str(error)]})

    @classmethod
    def from_json(cls, text: str | bytes) -> Outcome:
        """Raises: ValueError, KeyError: not written by `to_json`, or only half."""
        data = parse_json(text)
        if "kind" not in data:
            return cls(data["reason"])
        return cls(data["reason"], getattr(errors, data["kind"])(*data["given"]))


class Launcher(Protocol):
    """Runs works somewhere. `mixlaw.testing.check_launcher` holds an implementation to this.

    Attributes:
        slots: works that it can run at once, as far as it knows: how finely to cut stacks.
    """

    @property
    def slots(self) -> int: ...

    def submit(self, works: Sequence[Work]) -> list[str]:
        """Queue works, the costliest first; returns their tickets at once."""
        ...

    def poll(self) -> dict[str, Outcome]:
        """Tickets of works that ended since the last poll, each exactly once. Does not wait."""
        ...

    def cancel(self, ticket: str) -> None:
        """End this work, if it has not ended; `poll` will not tell of it."""
        ...

    def close(self) -> None:
        """End all that still runs; when it returns, none of it runs. May be called twice."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Raises: TrainError: for what reading JSON of another making raises."""
    try:
        yield
    except (ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise TrainError(
            f"{what} cannot be read here ({type(error).__name__}: {error}); install the same "
            "mixlaw as where it was made, with its extra (pip install 'mixlaw[train]'), or make it "
            "anew there: mixlaw train"
        ) from error


def may_pass(error: StorageError) -> bool:
    """Whether a disk or bucket refused what it may take a little later: not where space, rights or
    a package lack, nor what this package itself refuses."""
    cause = error.__cause__
    if cause is None or isinstance(cause, PermissionError | ImportError):
        return False
    # By the system's words, which are also in errors of libraries that have no number.
    lacking = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
    return not any(os.strerror(number) in str(error) for number in lacking)


def stack_name(stack: Sequence[RunSpec]) -> str:
    """For people: "8 x 55k"."""
    return f"{len(stack)} x {stack[0].size}"


def swarm_to_dict(swarm: Trainable) -> dict[str, Any]:
    """The swarm and where its class is found, so that a worker needs nothing else."""
    kind = type(swarm)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", **swarm.to_dict()}


def swarm_from_dict(data: Mapping[str, Any]) -> Trainable:
    """The inverse of `swarm_to_dict`."""
    fields = dict(data)
    module, _, name = fields.pop("class").partition(":")
    return getattr(importlib.import_module(module), name).from_dict(fields)

"""What a trainer is told of the data, and what it will make of it."""

from __future__ import annotations

import difflib
import math
import operator
import shlex
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from mixlaw.errors import ExportError
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule, stage_steps

if TYPE_CHECKING:
    from mixlaw.interop.snippet import Snippet

TOKEN, SAMPLE, DOCUMENT = "token", "sample", "document"
"""What a trainer's weights count: tokens, samples of a fixed length (in tokens: the same), or
documents of any length, whose shares of tokens are then others."""


@dataclass(frozen=True)
class Handover:
    """A mixture and what a trainer's config needs beside it. What an exporter needs and is not
    given is an error that says how to give it, never a default.

    Attributes:
        schedule: what to train on; static for one mixture. Domains may have no share.
        paths: domain -> where its data lie, in the trainer's own terms (a Megatron prefix, a
            folder, a dataset's name); several of a domain are read by their sizes.
        train_tokens: of the run.
        sequence_length: tokens of a sample.
        batch_sequences: samples of an optimiser step, over all ranks.
        available_tokens: domain -> unique tokens, where known; for epochs and repetition limits.
        mean_document_tokens: domain -> mean tokens of a document; turns shares of tokens into those
            of documents for a trainer that counts these.
        seed: of the trainer's own draws.
        name: of the run.
    """

    schedule: Schedule
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    train_tokens: int | None = None
    sequence_length: int | None = None
    batch_sequences: int | None = None
    available_tokens: Mapping[str, int] = field(default_factory=dict)
    mean_document_tokens: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    name: str = "mixlaw"

    def __post_init__(self):
        for name in ("train_tokens", "sequence_length", "batch_sequences"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise ExportError(f"{name} is {given}; it must be >= 1, or None: not known")
        if self.seed < 0:
            raise ExportError(f"the seed is {self.seed}; trainers take none below 0")

    @property
    def domains(self) -> tuple[str, ...]:
        """Those with a share at some time."""
        shares = self.schedule.dose
        return tuple(name for name in self.schedule.domains if shares[name] > 0)

    @property
    def num_samples(self) -> int | None:
        """Samples of the run, where its tokens and their length are known."""
        if self.train_tokens is None or self.sequence_length is None:
            return None
        return self.train_tokens // self.sequence_length

    @property
    def num_steps(self) -> int | None:
        """Whole optimiser steps of the run, where its samples and their batches are known."""
        if self.num_samples is None or self.batch_sequences is None:
            return None
        return self.num_samples // self.batch_sequences

    def stage_samples(self, trainer: str) -> list[int] | None:
        """Samples of each stage, changing between optimiser steps where these are known; None
        where the samples of the run are not.

        Raises: ExportError: a run too short for a step, or for one of its stages.
        """
        steps = self.num_steps
        whole, batch = (self.num_samples, 1) if steps is None else (steps, self.batch_sequences)
        if whole is None or batch is None:
            return None
        kind = "samples" if steps is None else "steps"
        if whole < 1:
            raise ExportError(
                f"{trainer} would do nothing: --train-tokens {self.train_tokens:,} are less than "
                f"one of its {kind} ({batch} x {self.sequence_length:,} tokens); train longer"
            )
        counts = stage_steps(self.schedule.shares, whole)
        if 0 in counts:
            empty = counts.index(0)
            raise ExportError(
                f"{trainer} would not see stage {empty + 1}, {self.schedule.shares[empty]:.3g} of "
                f"a run of {whole:,} {kind} (--train-tokens "
                f"{self.train_tokens:,}); train longer, or drop the stage"
            )
        return [count * batch for count in counts]

    def need(self, trainer: str, *names: str) -> None:
        """Raises: ExportError: one of these attributes is not known; says how to give it."""
        missing = [name for name in names if getattr(self, name) in (None, {})]
        if missing:
            options = " ".join(f"--{name.replace('_', '-')} ..." for name in missing)
            raise ExportError(
                f"a config for {trainer} needs {', '.join(missing)}; give {options}, or set them "
                "in the study's export section"
            )

    def paths_of(self, trainer: str, what: str) -> dict[str, tuple[str, ...]]:
        """The paths of every domain with a share.

        Args: what: a path is there, in a few words ("a Megatron prefix, without .bin").
        Raises: ExportError: a domain without one, an empty one, or one that two domains have.
        """
        missing = [name for name in self.domains if not self.paths.get(name)]
        if missing:
            others = [name for name in self.paths if name not in self.domains]
            near = difflib.get_close_matches(missing[0], others, n=1)
            hint = f" (one is given for {near[0]!r})" if near else ""
            raise ExportError(
                f"{trainer} reads each domain from {what}, which is not known for "
                f"{missing}{hint}; give --path {_word(missing[0])}=..., or one pattern for all: "
                "--path '/data/{domain}'"
            )
        owners: dict[str, str] = {}
        for name in self.domains:
            for path in self.paths[name]:
                if not path.strip() or "\0" in path:
                    raise ExportError(f"the path of {name!r} is {path!r}; {trainer} needs {what}")
                if path in owners:
                    raise ExportError(
                        f"{path!r} is a path of {owners[path]!r} and of {name!r}; each path "
                        "belongs to one domain, once"
                    )
                owners[path] = name
        return {name: tuple(self.paths[name]) for name in self.domains}


def _word(name: str) -> str:
    """As a shell takes it; in one line where it has none."""
    return shlex.quote(name) if name.isprintable() else repr(name)


@dataclass(frozen=True)
class Exported:
    """A trainer's config, and what comes of it.

    Attributes:
        files: name -> text, relative to the folder that they are written to.
        realised: the mixture, or mixtures, that the trainer will really draw, in its unit, after
            its own rounding.
        unit: what its weights count: "token", "sample" or "document".
        how: to give the files to the trainer: a command, or lines of Python.
        notes: what the user should know: traps, what was rounded away, what was not checked.
    """

    files: Mapping[str, str]
    realised: Schedule
    unit: str
    how: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the files' text."""
        return {
            "files": list(self.files),
            "realised": self.realised.to_list(),
            "unit": self.unit,
            "how": self.how,
            "notes": list(self.notes),
        }


class Exporter(Protocol):
    """Writes a mixture as one trainer wants it, and reads it back. One class in one file, and one
    line in `mixlaw.interop.exporters`."""

    name: ClassVar[str]
    """How it is called on the command line: "megatron"."""
    what: ClassVar[str]
    """The trainer and what of it is written, in a few words."""
    schedules: ClassVar[bool]
    """Whether the trainer changes its mixture during training by itself."""
    checked: ClassVar[str]
    """The release that its tests read the files with: "megatron-core 0.16.1"; or of which source
    the files were written after, where it cannot be installed: "source of nanotron 0.4"."""

    def export(self, handover: Handover) -> Exported:
        """The config. Raises: ExportError: what is missing, or cannot be said to this trainer; a
        schedule where it has none."""
        ...

    def snippet(self, handover: Handover) -> Snippet:
        """The config of one mixture throughout, all but its weights: for any mixture of the
        domains that have a share here. Raises: ExportError: as `export`, and where this trainer's
        config is no list of weights."""
        ...

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The mixture of a config of this trainer, however it was made; found by domain names, or
        by paths that name a domain. Raises: ExportError: it is none, or names no domain."""
        ...


def refuse_schedule(handover: Handover, trainer: str, remedy: str) -> Mixture:
    """The static mixture of a handover for a trainer that has no schedules.

    Raises: ExportError: it is staged, or the run is shorter than a step.
    """
    if not handover.schedule.is_static:
        raise ExportError(
            f"{trainer} keeps one mixture throughout, and this schedule has "
            f"{len(handover.schedule.stages)} stages; {remedy} (--stage 1 exports the first)"
        )
    handover.stage_samples(trainer)
    return handover.schedule.dose


def size_of(path: str, domain: str, size: Callable[[str], int]) -> int:
    """Of a path, to weigh it by among others of its domain.

    Raises: ExportError: it cannot be read, or is zero.
    """
    try:
        found, why = size(path), "it is empty"
    except (OSError, ValueError) as error:
        found, why = 0, str(error)
    if found <= 0:
        raise ExportError(
            f"the paths of {domain!r} are weighted by their sizes, and that of {path!r} is not to "
            f"be had ({why}); export where the files lie, or give one path for the domain"
        )
    return found


def literal(entries: Mapping[str, Any]) -> str:
    """A dict of plain values for a Python file, an entry a line."""
    lines = [f"    {name!r}: {value!r},\n" for name, value in entries.items()]
    return "{\n" + "".join(lines) + "}"


def without_zeros(mixture: Mixture) -> dict[str, float]:
    """Domain -> share above zero; they sum to one."""
    return {name: share for name, share in mixture.items() if share > 0}


def example_tokens(handover: Handover, trainer: str) -> tuple[str, dict[str, float]]:
    """What one example of this trainer's data is, and domain -> its mean tokens.

    Documents where `mean_document_tokens` is given, else samples of `sequence_length` tokens.

    Raises: ExportError: neither is known, or documents of some domains only.
    """
    known = handover.mean_document_tokens
    if not known and handover.sequence_length is not None:
        return SAMPLE, dict.fromkeys(handover.domains, float(handover.sequence_length))
    missing = [name for name in handover.domains if name not in known]
    if missing:
        raise ExportError(
            f"{trainer} draws examples, not tokens, and how long they are is not known for "
            f"{missing}; give --document-tokens {_word(missing[0])}=... (mean tokens of a "
            "document), or --sequence-length alone if every example is a packed block of that many "
            "tokens"
        )
    wrong = {name: known[name] for name in handover.domains if not 0 < known[name] < math.inf}
    if wrong:
        raise ExportError(f"mean tokens of a document are {wrong}; they must be finite and > 0")
    return DOCUMENT, {name: float(known[name]) for name in handover.domains}


def example_counts(
    handover: Handover, unit: str, tokens: Mapping[str, float], trainer: str
) -> list[dict[str, int]] | None:
    """Domain -> examples in each stage, by largest remainder; None where the length of the run is
    not known. `unit` and `tokens` are those of `example_tokens`.

    Raises: ExportError: a stage is too short.
    """
    if unit == SAMPLE and handover.num_samples is not None:
        return sample_counts(handover, trainer)
    if handover.train_tokens is None:
        return None
    wanted: list[tuple[Mapping[str, float], int]] = []
    for stage in handover.schedule.stages:
        budget = stage.share * handover.train_tokens
        exact = {n: budget * s / tokens[n] for n, s in without_zeros(stage.mixture).items()}
        wanted.append((exact, round(math.fsum(exact.values()))))
    return _counted(wanted, unit, trainer)


def sample_counts(handover: Handover, trainer: str) -> list[dict[str, int]] | None:
    """Domain -> samples in each stage, by largest remainder; None where those of the run are not
    known.

    Raises: ExportError: a stage is too short.
    """
    samples = handover.stage_samples(trainer)
    if samples is None:
        return None
    mixtures = [stage.mixture for stage in handover.schedule.stages]
    return _counted(list(zip(mixtures, samples, strict=True)), SAMPLE, trainer)


def _counted(
    wanted: Sequence[tuple[Mapping[str, float], int]], unit: str, trainer: str
) -> list[dict[str, int]]:
    for number, (shares, count) in enumerate(wanted, start=1):
        drawn = sum(share > 0 for share in shares.values())
        if count < drawn:
            raise ExportError(
                f"stage {number} of {len(wanted)} is {count} {unit}s long, and {drawn} domains "
                f"have a share of it: {trainer} could not draw one of each; give more "
                "--train-tokens, or drop the smallest domains"
            )
    return [apportion(shares, count) for shares, count in wanted]


def in_tokens(examples: Mixture, tokens: Mapping[str, float]) -> Mixture:
    """Shares of tokens that shares of examples give; `tokens`: domain -> those of an example."""
    return Mixture.from_weights({n: s * tokens[n] for n, s in without_zeros(examples).items()})


Named = TypeVar("Named", bound=Hashable)


def apportion(shares: Mapping[Named, float], total: int) -> dict[Named, int]:
    """`total` units by largest remainder, at least one to each share above zero.

    Raises: ExportError: there are more domains than units.
    """
    names = [name for name, share in shares.items() if share > 0]
    if len(names) > total:
        raise ExportError(
            f"{len(names)} domains have a share and there are {total} units to give; drop the "
            "smallest, or use a finer unit"
        )
    # One after the other, not by fsum or sum: a page repeats it to the last bit.
    whole = reduce(operator.add, (shares[name] for name in names), 0.0)
    exact = {name: shares[name] / whole * total for name in names}
    counts = {name: max(1, math.floor(exact[name] + 1e-9)) for name in names}
    # What the ones of the smallest cost is taken from those that are furthest above their share.
    while (left := total - sum(counts.values())) != 0:
        step = 1 if left > 0 else -1
        ready = [name for name in names if step > 0 or counts[name] > 1]
        chosen = max(ready, key=lambda name: step * (exact[name] - counts[name]))
        counts[chosen] += step
    return counts

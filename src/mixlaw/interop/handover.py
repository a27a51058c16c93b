"""What a trainer is told of the data, and what it will make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mixlaw.errors import ExportError
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

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
        Raises: ExportError: a domain without one, or a path of no domain.
        """
        missing = [name for name in self.domains if not self.paths.get(name)]
        if missing:
            raise ExportError(
                f"{trainer} reads each domain from {what}, which is not known for {missing}; give "
                f"--path {missing[0]}=..., or one pattern for all: --path '/data/{{domain}}'"
            )
        return {name: self.paths[name] for name in self.domains}


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
    """Writes a mixture as one trainer wants it. One class in one file, and one line in
    `mixlaw.interop.exporters`."""

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


class ReadsBack(Protocol):
    """An exporter whose format can be read, too."""

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The mixture of a config of this trainer, however it was made; found by domain names, or
        by paths that name a domain. Raises: ExportError: it is none, or names no domain."""
        ...


def refuse_schedule(handover: Handover, trainer: str, remedy: str) -> Mixture:
    """The static mixture of a handover for a trainer that has no schedules.

    Raises: ExportError: it is staged.
    """
    if not handover.schedule.is_static:
        raise ExportError(
            f"{trainer} keeps one mixture throughout, and this schedule has "
            f"{len(handover.schedule.stages)} stages; {remedy}"
        )
    return handover.schedule.dose


def without_zeros(mixture: Mixture) -> dict[str, float]:
    """Domain -> share above zero; they sum to one."""
    return {name: share for name, share in mixture.items() if share > 0}


def decimals(mixture: Mixture, digits: int = 6) -> dict[str, str]:
    """Domain -> share as text, rounded by largest remainder so that the texts sum to one exactly;
    zeros are dropped, and no share above zero becomes one.

    Raises: ExportError: more domains than such shares.
    """
    shares = without_zeros(mixture)
    unit = 10**digits
    counts = apportion(shares, unit)
    return {name: f"{counts[name] / unit:.{digits}f}" for name in shares}


def apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` units by largest remainder, at least one to each share above zero.

    Raises: ExportError: there are more domains than units.
    """
    names = [name for name, share in shares.items() if share > 0]
    if len(names) > total:
        raise ExportError(
            f"{len(names)} domains have a share and there are {total} units to give; drop the "
            "smallest, or use a finer unit"
        )
    whole = math.fsum(shares[name] for name in names)
    exact = {name: shares[name] / whole * total for name in names}
    counts = {name: max(1, math.floor(exact[name] + 1e-9)) for name in names}
    # What the ones of the smallest cost is taken from those that are furthest above their share.
    while (left := total - sum(counts.values())) != 0:
        step = 1 if left > 0 else -1
        ready = [name for name in names if step > 0 or counts[name] > 1]
        chosen = max(ready, key=lambda name: step * (exact[name] - counts[name]))
        counts[chosen] += step
    return counts

"""What a tracker is, and how lines of `metrics.jsonl` become its points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mixlaw.runs import DONE, RunResult, RunSpec

EVENTS = "events"
TRAINING_VALUES = ("loss", "rate", "grad_norm")


@dataclass(frozen=True)
class Point:
    """Values of one series at one place.

    Attributes:
        series: "train" is the training to the longest horizon; "horizon/<tokens>" what a shorter
            one has of its own, which goes over the same tokens and so needs its own curve; "eval"
            the losses at the horizons.
        tokens: the x axis. Horizons and laws are in tokens, and sizes or runs with other batches
            can be compared by them; steps they have not in common.
        values: tag -> value; a tag is the series, "/", and a name.
    """

    series: str
    tokens: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Event:
    """Something that happened to a run, in words; `number` counts the run's events from 1."""

    number: int
    tokens: int
    text: str


class Tracker(Protocol):
    """A tool that shows runs. Any method but the constructor may raise anything: then the tracker
    is left out, and training goes on.

    A run may be begun again by a later process, and its points must be neither lost nor doubled,
    even if the one before was killed. What a tool had in memory then is gone, so only the tool
    can say what it holds: `begin` asks it.
    """

    @property
    def destination(self) -> str:
        """Name and place, for people; trackers of one destination write to the same runs there."""
        ...

    def begin(self, spec: RunSpec) -> Mapping[str, int]:
        """Open a run, new or again.

        Returns: series -> tokens of its last point that the tool holds; "events" -> how many.
        """
        ...

    def log(self, spec: RunSpec, points: Sequence[Point], events: Sequence[Event]) -> None:
        """Add to a run that was begun."""
        ...

    def finish(self, spec: RunSpec, result: RunResult) -> None:
        """The run has ended; nothing more will come of it."""
        ...

    def close(self) -> None:
        """This process ends; runs that are not finished may be begun again by another."""
        ...


def series_of(tag: str) -> str:
    """The series of a tag: "horizon/4096/loss" -> "horizon/4096", "eval/loss/web" -> "eval"."""
    parts = tag.split("/")
    return "/".join(parts[:2] if parts[0] == "horizon" else parts[:1])


def points(
    spec: RunSpec, lines: Sequence[Mapping[str, Any]], result: RunResult | None
) -> list[Point]:
    """The points of a run, those of a series in the order of their tokens.

    Args:
        lines: as `RunStore.metrics` returns them.
        result: None while it trains. Its losses stand in for evaluations without a line.
    """
    found = {}
    for line in lines:
        if line.get("event") == "evaluated":
            series, tokens, values = "eval", line["horizon"], line["targets"]
        elif "event" in line:
            continue
        else:
            longest = line["horizon"] in (None, spec.horizon_tokens[-1])
            series = "train" if longest else f"horizon/{line['horizon']}"
            tokens, values = line["tokens"], {key: line.get(key) for key in TRAINING_VALUES}
        found[series, tokens] = values
    if result is not None and result.status == DONE:
        for tokens, values in zip(spec.horizon_tokens, result.targets, strict=True):
            found["eval", tokens] = values
        if result.at_start:
            found["eval", 0] = result.at_start
    made = []
    for (series, tokens), values in sorted(found.items(), key=lambda item: item[0][1]):
        tags = {f"{series}/{k}": v for k, v in values.items() if v is not None and math.isfinite(v)}
        if tags:
            made.append(Point(series, tokens, tags))
    return made


def events(lines: Sequence[Mapping[str, Any]]) -> list[Event]:
    """What happened to a run, evaluations left out, each where the training just was."""
    found, tokens = [], 0
    for line in lines:
        if "event" not in line:
            tokens = line["tokens"]
        elif line["event"] != "evaluated":
            text = f"step {line['step']:,}: {line['event']}"
            if "mixture" in line:  # of an online run
                text += " " + ", ".join(f"{k} {v:.3g}" for k, v in line["mixture"].items())
            text += f", {line['reason']}" if line.get("reason") else ""
            found.append(Event(len(found) + 1, tokens, text))
    return found


def describe(spec: RunSpec) -> dict[str, str | int | float]:
    """What a tool lists and filters runs by: scalars, the mixture as share/<domain>.

    A run with a schedule has also stage/<number>/of_training and stage/<number>/share/<domain>, one
    that continues a model start/..., one that adapts its mixture online/....
    """
    facts = {"label": spec.label, "role": spec.role, "size": spec.size, "seed": spec.seed}
    facts |= {"num_params": spec.num_params, "train_tokens": spec.horizon_tokens[-1]}
    facts |= {f"share/{name}": share for name, share in spec.mixture.items()}
    for number, stage in enumerate(spec.schedule.stages if spec.schedule else (), start=1):
        facts[f"stage/{number}/of_training"] = stage.share
        facts |= {f"stage/{number}/share/{name}": share for name, share in stage.mixture.items()}
    if spec.start is not None:
        facts |= {"start/model": spec.start.digest[:12], "start/rewarm": spec.start.rewarm}
        facts["start/optimizer"] = spec.start.optimizer
    if spec.online is not None:
        settings = spec.online.to_dict()
        weights = settings.pop("weights")
        facts |= {f"online/{k}": v for k, v in settings.items() if v is not None}
        facts |= {f"online/weight/{target}": weight for target, weight in weights.items()}
    return facts


def run_name(spec: RunSpec) -> str:
    """For people, and unique: "m07 55k seed 3 1a2b3c"."""
    return f"{spec.label} {spec.size} seed {spec.seed} {spec.run_id[:6]}"

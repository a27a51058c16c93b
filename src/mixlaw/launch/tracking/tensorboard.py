"""TensorBoard: one event file per run."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from mixlaw.errors import MissingExtraError
from mixlaw.interop.records import EventRecords
from mixlaw.launch.tracking.base import EVENTS, Event, Point, describe, run_name, series_of
from mixlaw.runs import RunResult, RunSpec

FILE = "events.out.tfevents.mixlaw"


class TensorBoard:
    """Curves over tokens, of each run in its own folder under <folder>/tensorboard.

    A file is open only while points are added: these outlive the process, whatever ends it, and a
    thousand runs hold no thousand files. A record has all values of a point, so that a point is
    there or it is not.
    """

    def __init__(self, folder: Path):
        """Raises: MissingExtraError."""
        try:
            _proto("event_pb2")
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None
        self.folder = folder / "tensorboard"
        self.destination = f"tensorboard {self.folder}"

    def _file(self, spec: RunSpec) -> Path:
        return self.folder / re.sub(r"[^\w.+-]+", "-", run_name(spec)) / FILE

    def begin(self, spec: RunSpec) -> Mapping[str, int]:
        path = self._file(spec)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, [{"file_version": "brain.Event:2"}, {"summary": _hparams(spec)}])
        held = {}
        with open(path, "rb+") as handle:
            records = EventRecords(handle)
            for data, _ in records:
                record = _proto("event_pb2").Event.FromString(data)
                for value in record.summary.value:
                    series = series_of(value.tag)
                    held[series] = held.get(EVENTS, 0) + 1 if series == EVENTS else record.step
            handle.truncate(records.end)  # a torn record would hide all that follows it
        return held

    def log(self, spec: RunSpec, points: Sequence[Point], events: Sequence[Event]) -> None:
        summary = _proto("summary_pb2").Summary
        made: list[dict[str, Any]] = []
        for point in points:
            values = [summary.Value(tag=t, simple_value=v) for t, v in point.values.items()]
            made.append({"step": point.tokens, "summary": summary(value=values)})
        made += [{"step": event.tokens, "summary": _text(event.text)} for event in events]
        self._write(self._file(spec), made)

    def _write(self, path: Path, events: Sequence[Mapping[str, Any]]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = BytesIO()
        for fields in events:
            record = _proto("event_pb2").Event(wall_time=time.time(), **fields)
            RecordWriter(records).write(record.SerializeToString())
        with open(path, "ab") as handle:
            handle.write(records.getvalue())

    def finish(self, spec: RunSpec, result: RunResult) -> None:
        """All is in the file."""

    def close(self) -> None:
        """No file is open."""


def _proto(module: str) -> Any:
    return importlib.import_module(f"tensorboard.compat.proto.{module}")


def _hparams(spec: RunSpec) -> Any:
    """What the tab HPARAMS compares runs by."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    return hparams_pb(describe(spec), trial_id=spec.run_id)


def _text(text: str) -> Any:
    from tensorboard.plugins.text.metadata import create_summary_metadata

    summary, tensor = _proto("summary_pb2").Summary, _proto("tensor_pb2").TensorProto
    value = summary.Value(
        tag=EVENTS,
        metadata=create_summary_metadata(display_name="", description=""),
        tensor=tensor(dtype=_proto("types_pb2").DT_STRING, string_val=[text.encode()]),
    )
    return summary(value=[value])

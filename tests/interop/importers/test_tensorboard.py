"""Event files of the real writers, read without TensorBoard."""

from __future__ import annotations

import importlib
import io
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop.importers import recognise
from mixlaw.interop.importers.tensorboard import TensorBoard
from mixlaw.interop.logged import LoggedRun
from mixlaw.runs import DONE, FAILED

pytest.importorskip("tensorboard", reason="the writer is not installed")


def writer(folder: Path, **options):
    torch_writer = pytest.importorskip("torch.utils.tensorboard", reason="torch is not installed")
    return torch_writer.SummaryWriter(str(folder), **options)


def proto(name: str) -> Any:
    return importlib.import_module(f"tensorboard.compat.proto.{name}_pb2")


def event(**what) -> bytes:
    return proto("event").Event(wall_time=1.5, **what).SerializeToString()


def value(tag: str, number=None, tensor=None, plugin: str = ""):
    made = proto("summary").Summary.Value(tag=tag)
    if number is not None:
        made.simple_value = number
    if tensor is not None:
        made.tensor.CopyFrom(tensor)
    if plugin:
        metadata = proto("summary").SummaryMetadata.PluginData(plugin_name=plugin)
        made.metadata.CopyFrom(proto("summary").SummaryMetadata(plugin_data=metadata))
    return made


def summary(*values) -> Any:
    return proto("summary").Summary(value=values)


def image(tag: str, content: bytes) -> Any:
    held = proto("summary").Summary.Image(encoded_image_string=content)
    return proto("summary").Summary.Value(tag=tag, image=held)


def scalars(step: int, **numbers: float) -> bytes:
    values = [value(tag, number) for tag, number in numbers.items()]
    return event(step=step, summary=summary(*values))


def write(path: Path, *events: bytes) -> Path:
    from tensorboard.summary.writer.record_writer import RecordWriter

    handle = io.BytesIO()
    for data in (event(file_version="brain.Event:2"), *events):
        RecordWriter(handle).write(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(handle.getvalue())
    return path


def read(*sources: Path, names=None) -> dict[str, LoggedRun]:
    assert TensorBoard().recognises(list(map(str, sources)))
    return {run.run: run for run in TensorBoard().read(list(map(str, sources)), names=names)}


def curve(run: LoggedRun, name: str) -> list[tuple[float, float]]:
    series = run.series[name]
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_runs_of_torchs_writer(tmp_path):
    for number in range(2):
        with writer(tmp_path / f"run{number}") as made:
            for step in range(0, 50, 10):
                made.add_scalar("loss/web", 3 - step / 64 + number, step)
                made.add_scalar("as/tensor", step / 4, step, new_style=True)
            made.add_histogram("weights", np.arange(100), 3)
            made.add_scalars("several", {"one": 1.0}, 3)
            made.add_text("args", json.dumps({"mixture": {"web": 0.5 + number / 4}, "seed": 3}))
            made.add_text("note", "in words")
    runs = read(tmp_path)
    assert recognise([str(tmp_path)]).name == "tensorboard"
    assert set(runs) == {"run0", "run0/several_one", "run1", "run1/several_one"}
    assert set(runs["run1"].series) == {"loss/web", "as/tensor"}
    assert curve(runs["run1"], "loss/web") == [(40, 3.375)]
    assert runs["run1"].fields == {
        "config.args.mixture.web": 0.75,
        "config.args.seed": 3,
        "config.note": "in words",
    }
    whole = read(tmp_path / "run1", names=["loss/web", "as/tensor"])["run1"]
    assert curve(whole, "loss/web") == [(s, 4 - s / 64) for s in range(0, 50, 10)]
    assert curve(whole, "as/tensor") == [(s, s / 4) for s in range(0, 50, 10)]
    assert (whole.name, whole.status, whole.notes) == ("run1", DONE, [])


def test_hyperparameters_of_torch_are_of_the_run_above_their_folder(tmp_path):
    with writer(tmp_path / "run") as made:
        made.add_scalar("loss", 2.0, 100)
        made.add_hparams({"lr": 0.5, "deep": True, "domain": "web"}, {"loss": 2.0})
    assert len(list(tmp_path.rglob("*tfevents*"))) == 2
    (run,) = read(tmp_path).values()
    assert run.fields == {
        "config.lr": 0.5,
        "config.deep": 1.0,  # as torch writes it
        "config.domain": "web",
        "summary.loss": 2.0,
    }
    assert curve(run, "loss") == [(100, 2.0)]


def test_trials_of_one_writer_are_runs(tmp_path):
    with writer(tmp_path / "search") as made:
        made.add_scalar("loss", 2.0, 100)
        for rate in (0.5, 0.25):
            made.add_hparams({"lr": rate}, {"loss": rate}, run_name=f"123456789.{rate}")
    assert [run.fields.get("config.lr") for run in read(tmp_path).values()] == [None, 0.25, 0.5]


def test_scalars_of_tensorboards_own_writer_are_tensors(tmp_path):
    from tensorboard.summary import Writer

    made = Writer(str(tmp_path / "run"))
    for step in (1, 2):
        made.add_scalar("loss", 0.5 * step, step=step)
    made.close()
    assert curve(read(tmp_path, names=["loss"])["run"], "loss") == [(1, 0.5), (2, 1.0)]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int32", "int64", "bfloat16"])
@pytest.mark.parametrize("packed", [True, False])
def test_tensors_of_every_type(tmp_path, kind, packed):
    from tensorboard.util.tensor_util import make_tensor_proto

    if kind == "bfloat16":  # the upper half of the float 3.0
        tensor = proto("tensor").TensorProto(dtype=14, half_val=[0x4040])
    elif packed:
        tensor = proto("tensor").TensorProto(
            dtype=make_tensor_proto(np.zeros((), kind)).dtype,
            tensor_content=np.array(3, kind).tobytes(),
        )
    else:
        tensor = make_tensor_proto(np.array(3, kind))
    several = make_tensor_proto(np.zeros((2, 3), "float64"))
    values = [
        value("one", tensor=tensor, plugin="scalars"),
        value("several", tensor=several, plugin="scalars"),
        value("other", tensor=tensor, plugin="pr_curves"),
        value("text", tensor=make_tensor_proto(np.array([b"a", b"b"]))),
    ]
    write(
        tmp_path / "run" / "tfevents",
        event(step=-7, summary=proto("summary").Summary(value=values)),
    )
    run = read(tmp_path)["run"]
    assert set(run.series) == {"one"}
    assert curve(run, "one") == [(-7, 3.0)]
    assert run.fields == {}


def test_a_restart_replaces_what_came_after_its_first_step(tmp_path):
    first, second = tmp_path / "tfevents.1", tmp_path / "tfevents.2"
    write(first, *(scalars(s, loss=s, other=s) for s in (10, 20, 30, 40)))
    write(second, *(scalars(s, loss=-s) for s in (30, 35)))
    run = read(tmp_path, names=["loss", "other"])[tmp_path.name]
    assert curve(run, "loss") == [(10, 10), (20, 20), (30, -30), (35, -35)]
    assert curve(run, "other") == [(s, s) for s in (10, 20, 30, 40)]  # another writer's
    assert run.notes == ["1 points were left out that a restart trained again"]


def test_a_start_that_is_told_replaces_all_tags(tmp_path):
    """As of SummaryWriter(purge_step=...)."""
    with writer(tmp_path) as made:
        for step in (10, 20, 30):
            made.add_scalar("loss", step, step)
            made.add_scalar("other", step, step)
    with writer(tmp_path, purge_step=20) as made:
        made.add_scalar("loss", -20, 20)
    (run,) = read(tmp_path, names=["loss", "other"]).values()
    assert curve(run, "loss") == [(10, 10), (20, -20)]
    assert curve(run, "other") == [(10, 10)]


def test_runs_are_called_by_what_their_paths_do_not_share(tmp_path):
    for place in ("x/logs/a/1", "x/logs/a/2", "x/logs/b"):
        write(tmp_path / place / "tfevents", scalars(1, loss=1))
    assert set(read(tmp_path / "x" / "logs")) == {"a/1", "a/2", "b"}
    assert set(read(tmp_path)) == {"x/logs/a/1", "x/logs/a/2", "x/logs/b"}
    assert set(read(tmp_path / "x/logs/a/1", tmp_path / "x/logs/b")) == {"a/1", "b"}
    assert set(read(tmp_path / "x/logs/a/1/tfevents", tmp_path / "x/logs/a/2")) == {"1", "2"}
    assert set(read(tmp_path / "x/logs/b/../a")) == {"1", "2"}
    again = read(tmp_path / "x/logs/b", tmp_path / "x/logs/b/tfevents")
    assert set(again) == {"b"}
    assert again["b"].name == "b"


def test_what_is_cut_or_damaged_is_said(tmp_path):
    events = [scalars(step, loss=step, other=1) for step in (1, 2, 3)]
    path = write(tmp_path / "tfevents", *events)
    whole = path.read_bytes()
    ends = [0, *(len(write(tmp_path / "few", *events[:n]).read_bytes()) for n in range(4))]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        (run,) = TensorBoard().read([str(tmp_path)], names=["loss"])
        steps = [step for step, _ in curve(run, "loss")] if run.series else []
        assert steps == [1, 2, 3][: len(steps)]
        assert len(steps) == max(sum(end <= cut for end in ends) - 2, 0)
        assert bool(run.notes) == (cut not in ends)
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the last value
    path.write_bytes(flipped)
    (run,) = TensorBoard().read([str(tmp_path)], names=["loss"])
    assert curve(run, "loss") == [(1, 1), (2, 2)]
    assert run.notes == ["tfevents: 1 damaged records were left out"]


def test_numbers_that_are_not_finite_stay_what_they_are(tmp_path):
    write(tmp_path / "tfevents", scalars(1, a=float("nan"), b=float("-inf")), scalars(2, c=0.0))
    (run,) = read(tmp_path).values()
    assert np.isnan(run.series["a"].values[0])
    assert curve(run, "b") == [(1, -np.inf)]
    assert curve(run, "c") == [(2, 0.0)]


def test_a_tag_of_images_may_have_numbers_later(tmp_path):
    image = proto("summary").Summary(
        value=[
            proto("summary").Summary.Value(
                tag="t", image=proto("summary").Summary.Image(height=1, width=1)
            )
        ]
    )
    write(tmp_path / "tfevents", event(step=1, summary=image), scalars(2, t=4), scalars(3, t=5))
    (run,) = read(tmp_path, names=["t"]).values()
    assert curve(run, "t") == [(2, 4), (3, 5)]


def test_a_session_that_failed_is_a_failed_run(tmp_path):
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    plugin: Any = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
    start = event(summary=hparams_pb({"lr": 0.25, "on": True, "domain": "web"}, trial_id="t7"))
    for name, status in (("a", 1), ("b", 2)):
        end = hparams_pb({})
        told = plugin.HParamsPluginData(session_end_info=plugin.SessionEndInfo(status=status))
        end.value[0].metadata.plugin_data.content = told.SerializeToString()
        write(tmp_path / name / "tfevents", start, event(summary=end))
    runs = read(tmp_path)
    assert [run.status for run in runs.values()] == [DONE, FAILED]
    assert runs["b"].fields == {
        "config.lr": 0.25,
        "config.on": True,
        "config.domain": "web",
        "trial": "t7",
    }


def test_a_run_without_any_point_is_a_run(tmp_path):
    (run,) = read(write(tmp_path / "run" / "tfevents")).values()
    assert (run.run, run.series, run.fields) == ("run", {}, {})


def test_what_is_none_of_tensorboards(tmp_path):
    (tmp_path / "runs.csv").write_text("a,b\n")
    found = TensorBoard()
    for sources in ([], [str(tmp_path)], [str(tmp_path / "runs.csv")], ["wandb://a/b"], ["none"]):
        assert not found.recognises(sources)
    with pytest.raises(RunTableError, match=r"no event file \(\*tfevents\*\) in .*log directory"):
        list(found.read([str(tmp_path)]))


def test_a_large_file_takes_little_memory(tmp_path):
    """130 MB of images, graphs and scalars, of which one series is wanted."""
    image = proto("summary").Summary.Image(encoded_image_string=bytes(2_000_000))
    large = event(
        step=5,
        summary=proto("summary").Summary(
            value=[proto("summary").Summary.Value(tag="i", image=image)]
        ),
    )
    graph = event(graph_def=bytes(6_000_000))
    path = tmp_path / "tfevents"
    with open(path, "wb") as handle:
        for step in range(16):
            write(path.with_name("few"), *(scalars(100 * step + n, loss=n) for n in range(100)))
            handle.write(unchecked(large) + unchecked(graph) + path.with_name("few").read_bytes())
    path.with_name("few").unlink()
    assert path.stat().st_size > 128e6
    tracemalloc.start()
    (run,) = read(tmp_path, names=["loss"]).values()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(run.series["loss"].steps) == 1600
    assert peak < 12e6


def unchecked(data: bytes) -> bytes:
    """A record whose data have no checksum, which takes the writer seconds for megabytes."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    header = struct.pack("<Q", len(data))
    return header + struct.pack("<I", masked_crc32c(header)) + data + bytes(4)


@pytest.mark.parametrize("together", [False, True])
def test_the_end_is_that_of_all_scalars_whichever_are_wanted(tmp_path, together):
    rows = [{"train": 3.0, "eval": 2.0}, {"train": 2.0}, {"train": 1.0}]
    events = [
        event
        for step, row in enumerate(rows, start=1)
        for event in (
            [scalars(step, **row)]
            if together
            else [scalars(step, **{t: v}) for t, v in row.items()]
        )
    ]
    samples = [scalars(512 * step, **{"loss vs samples": 1.0}) for step in (1, 2, 3)]
    write(tmp_path / "a/events.out.tfevents.1", *events, *samples)
    for names in (["eval"], [], None):
        assert read(tmp_path / "a", names=names)["a"].end("_step") == 3
    both = read(tmp_path / "a", names=["eval", "loss vs samples"])["a"]
    assert curve(both, "eval") == [(1, 2.0)]
    assert (both.series["loss vs samples"].axis, both.end("samples")) == ("samples", 1536)


def test_a_damaged_step_is_no_end(tmp_path):
    path = write(tmp_path / "a/events.out.tfevents.1", scalars(1, loss=1.0), scalars(2, loss=2.0))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"\x10\x02") + 1] = 99
    path.write_bytes(content)
    run = read(tmp_path / "a", names=["eval"])["a"]
    assert run.end("_step") == 1
    assert "damaged" in run.notes[0]

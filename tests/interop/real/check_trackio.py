"""Projects of the real client, which writes them without a server and without the network."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixlaw.interop.importers import recognise

LOG = """
import json, sys, trackio
for number in range(2):
    run = trackio.init(
        project="my.study", name=f"run {number}", embed=False,
        config={"mixture": {"web": 0.75, "code": 0.25}, "layers": 4 + number},
    )
    for step in (0, 10, 20):
        trackio.log({"loss": 3 - step / 16 + number, "deep": {"er": step}, "text": "x"}, step=step)
    trackio.log({"odd": float("nan"), "up": float("inf"), "yes": True}, step=30)
    trackio.log({"table": trackio.Table(data=[[1, 2]], columns=["a", "b"])}, step=30)
    trackio.finish()
again = trackio.init(project="my.study", name="run 1", embed=False, resume="must")
trackio.log({"loss": 9.0}, step=10)
trackio.finish()

from trackio.sqlite_storage import SQLiteStorage
SQLiteStorage._dataset_import_attempted = True  # else it would look for the project in the hub
SQLiteStorage.export_to_parquet()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trackio")
    environment = {**os.environ, "TRACKIO_DIR": str(folder)}
    command = [sys.executable, "-c", LOG]
    subprocess.run(command, check=True, capture_output=True, timeout=100, env=environment)
    return folder


@pytest.mark.parametrize("kind", [".db", ".parquet"])
def test_runs_of_the_client(tmp_path, folder, kind):
    for path in folder.glob(f"mystudy*{kind}*"):
        shutil.copy(path, tmp_path)
    found = recognise([str(tmp_path)])
    assert found.name == "trackio"
    names = ["loss", "deep.er", "odd", "up", "yes", "text"]
    first, second = found.read([str(tmp_path / f"mystudy{kind}")], names=names)
    assert (first.name, second.name) == ("run 0", "run 1")
    assert first.fields["config.mixture.web"] == 0.75
    assert first.fields["config.layers"] == 4
    assert not [name for name in first.fields if name.startswith("config._")]
    assert set(first.series) == {"loss", "deep.er", "odd", "up"}
    assert first.series["loss"].steps.tolist() == [0, 10, 20]
    assert first.series["loss"].values.tolist() == [3, 2.375, 1.75]
    assert first.series["deep.er"].values.tolist() == [0, 10, 20]
    assert math.isnan(first.series["odd"].values[0])
    assert first.series["up"].values.tolist() == [math.inf]
    assert second.series["loss"].values.tolist() == [4, 9]
    assert second.notes == ["1 points were left out that a restart trained again"]
    assert (first.fields["summary.loss"], second.fields["summary.loss"]) == (1.75, 9)

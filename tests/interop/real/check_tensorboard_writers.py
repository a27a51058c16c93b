"""Event files of writers other than TensorBoard's and torch's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorboardX
import torch.utils.tensorboard

from mixlaw.interop.importers import recognise


@pytest.mark.parametrize(
    "writer", [tensorboardX.SummaryWriter, torch.utils.tensorboard.SummaryWriter]
)
def test_every_writer_says_the_same(tmp_path, writer):
    folder = tmp_path / "run"
    with writer(str(folder)) as made:
        for step in (0, 10, 20):
            made.add_scalar("eval/loss", 3 - step / 16, step)
        made.add_histogram("weights", np.arange(100), 20)
        made.add_image("image", np.zeros((3, 64, 64)), 20)
        made.add_text("config", json.dumps({"mixture": {"web": 0.75}}))
        made.add_scalar("odd", float("nan"), 20)
    # tensorboardX names files by the second, and begins one of the same name anew.
    with writer(str(folder), purge_step=20, filename_suffix=".2") as made:
        made.add_scalar("eval/loss", 1.0, 20)
        made.add_hparams({"lr": 0.5, "domain": "web"}, {"final": 1.0})
    found = recognise([str(tmp_path)])
    assert found.name == "tensorboard"
    (run,) = found.read([str(tmp_path)], names=["eval/loss", "odd"])
    assert run.run == "run"
    assert run.series["eval/loss"].steps.tolist() == [0, 10, 20]
    assert run.series["eval/loss"].values.tolist() == [3, 2.375, 1]
    assert "odd" not in run.series  # purged
    assert run.fields["config.config.mixture.web"] == 0.75
    assert run.fields["config.lr"] == 0.5
    assert run.fields["config.domain"] == "web"
    (run,) = found.read([str(tmp_path)])
    assert set(run.series) == {"eval/loss", "odd"}

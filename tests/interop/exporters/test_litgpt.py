from __future__ import annotations

import ast
import json
import sys

from mixlaw.interop.exporters.litgpt import LitGpt
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

WANTED = Mixture({"web": 0.7, "code": 0.3})
PATHS = {"web": ("/d/1", "/d/2"), "code": ("s3://b/code",)}


def test_the_plan_has_weights_and_folders():
    exported = LitGpt().export(Handover(Schedule.static(WANTED), PATHS, seed=5))
    made = json.loads(exported.files["mixture.json"])
    assert made["domains"] == {
        "web": {"weight": 0.7, "paths": ["/d/1", "/d/2"]},
        "code": {"weight": 0.3, "paths": ["s3://b/code"]},
    }
    assert made["seed"] == 5


def test_the_command_has_the_seed_and_the_length():
    handover = Handover(
        Schedule.static(WANTED),
        PATHS,
        train_tokens=51_200,
        sequence_length=64,
        batch_sequences=8,
        seed=5,
    )
    options = LitGpt().export(handover).how.split(" FOLDER ")[1]
    assert options == (
        "--seed 5 --train.max_tokens 51200 --train.max_seq_length 64 --train.global_batch_size 8"
    )


def test_the_module_stands_by_itself():
    exported = LitGpt().export(Handover(Schedule.static(WANTED), PATHS))
    tree = ast.parse(exported.files["litgpt_mixture.py"])
    names = {
        (str(node.module) if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names - sys.stdlib_module_names == {"litdata", "litgpt", "torch"}

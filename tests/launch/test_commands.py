"""Commands that people start themselves, at any place that sees the run folder."""

from __future__ import annotations

import shlex

import pytest

from mixlaw.errors import TrainError
from mixlaw.launch.commands import print_commands, work_until_done
from mixlaw.testing import PretendSwarm, pretend_specs, times_trained


def test_the_commands_together_train_everything_once(tmp_path):
    swarm, specs = PretendSwarm(str(tmp_path / "Ann's runs")), pretend_specs(6)
    commands = print_commands(swarm, specs)
    parsed = [shlex.split(command) for command in commands]
    assert [words[:4] for words in parsed] == [["mixlaw", "work", swarm.runs, "--runs"]] * 2
    assert [run_id for words in parsed for run_id in words[4].split(",")] == [
        spec.run_id for spec in specs
    ]
    url, run_ids = parsed[1][2], parsed[1][4].split(",")
    assert work_until_done(url, run_ids=run_ids, workers=1) == {}
    assert times_trained(swarm.store, specs) == [0, 0, 0, 0, 1, 1]
    assert [shlex.split(command)[4] for command in print_commands(swarm, specs)] == [parsed[0][4]]
    assert work_until_done(url, workers=1) == {}
    assert times_trained(swarm.store, specs) == [1] * 6
    assert print_commands(swarm, specs) == []


def test_one_command_for_each_machine_at_hand(tmp_path):
    assert len(print_commands(PretendSwarm(str(tmp_path)), pretend_specs(6), slots=3)) == 3


def test_commands_of_an_older_study_are_told(tmp_path):
    swarm = PretendSwarm(str(tmp_path))
    print_commands(swarm, pretend_specs(2))
    with pytest.raises(TrainError, match=r"no run abc among the 2 to train.*print it again"):
        work_until_done(swarm.runs, run_ids=["abc"])


def test_the_folder_may_lie_elsewhere_on_another_machine(tmp_path):
    swarm, specs = PretendSwarm(str(tmp_path / "here")), pretend_specs(2)
    print_commands(swarm, specs)
    (tmp_path / "here").rename(tmp_path / "there")
    assert work_until_done(str(tmp_path / "there"), workers=1) == {}
    assert times_trained(PretendSwarm(str(tmp_path / "there")).store, specs) == [1, 1]

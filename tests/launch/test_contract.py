"""Every launcher keeps the same contract."""

from __future__ import annotations

import functools
import subprocess
import sys

from mixlaw.launch.local import LocalLauncher
from mixlaw.testing import check_launcher


def test_local_processes(tmp_path):
    check_launcher(functools.partial(LocalLauncher, device="cpu", workers=2), tmp_path)


def test_a_broken_contract_is_told_also_without_asserts():
    code = """
from unittest.mock import MagicMock
from mixlaw.testing import check_launcher
launcher = MagicMock(slots=0)
launcher.__enter__.return_value = launcher
launcher.__exit__.return_value = False
check_launcher(lambda: launcher, "nowhere")
"""
    ended = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert "AssertionError: slots is 0; it must be at least 1" in ended.stderr

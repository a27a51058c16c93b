"""Every launcher keeps the same contract."""

from __future__ import annotations

import functools

from mixlaw.launch.local import LocalLauncher
from mixlaw.testing import check_launcher


def test_local_processes(tmp_path):
    check_launcher(functools.partial(LocalLauncher, device="cpu", workers=2), tmp_path)

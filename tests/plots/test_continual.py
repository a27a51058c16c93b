"""The pictures of a continual answer say what they lack; the report's tests see them drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mixlaw import plots
from mixlaw.errors import FitError, StudyError


def test_an_unknown_target_and_no_lines_are_named():
    found: Any = SimpleNamespace(laws=SimpleNamespace(targets=("loss/old",)), main=None)
    with pytest.raises(FitError, match=r"'loss/nope' was not fitted; .*\['loss/old'\]"):
        plots.losses_by_share(found, "loss/nope")
    for lines in ([], [[]]):
        with pytest.raises(StudyError, match="give at least one line"):
            plots.moving_answers(lines)

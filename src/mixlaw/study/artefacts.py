"""JSON results of a study, each stamped with the seed, version and inputs it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw import __version__
from mixlaw.errors import StudyError
from mixlaw.files import SEAL, digest, is_altered, read_json, sealed, write_json

DESIGN, FIT, DECISION = "design.json", "fit.json", "decision.json"
PARETO, VERIFICATION, REPORT = "pareto.json", "verification.json", "report.html"
CONTINUAL, CONTINUAL_BASES = "continual.json", "continual-bases.json"
STAGED_DESIGN, STAGES, SCHEDULE = "staged-design.json", "stages.json", "schedule.json"
SCHEDULE_VERIFICATION = "schedule-verification.json"
REFITS = "refits.json"

TOLD = (FIT, DECISION, PARETO, VERIFICATION, CONTINUAL, SCHEDULE, SCHEDULE_VERIFICATION)
"""What the report tells of."""


@dataclass(frozen=True)
class Artefacts:
    """The results in a study's folder. A basis is JSON-able: all that a result was made from."""

    folder: Path
    seed: int

    def read(self, name: str) -> dict[str, Any] | None:
        """Basis and result as stored, current or not; None when there is none of this making.

        Raises: StudyError: the file is foreign, damaged, or was changed since it was written.
        """
        path = self.folder / name
        if not path.exists():
            return None
        try:
            data = read_json(path)
            if not {"mixlaw", "inputs", "basis", "result"} <= data.keys():
                problem = "it lacks mixlaw's stamp"
            elif SEAL not in data:
                return None  # of a state of mixlaw that sealed nothing
            elif not is_altered(data):
                return data
            else:
                problem = "it was changed since it was written"
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            problem = str(error)
        raise StudyError(
            f"{path} is damaged or was not written by mixlaw ({problem}); delete it and run the "
            "same command again, finished runs are kept"
        )

    def current(self, name: str, basis: Any) -> Any | None:
        """The result if this version made it from `basis`, else None."""
        data = self.read(name)
        if data is None or (data["mixlaw"], data["inputs"]) != (__version__, digest(basis)):
            return None
        return data["result"]

    def write(self, name: str, basis: Any, result: Any) -> None:
        stamp = {"mixlaw": __version__, "seed": self.seed, "inputs": digest(basis)}
        write_json(self.folder / name, sealed({**stamp, "basis": basis, "result": result}))

    def cached(self, name: str, basis: Any, make: Callable[[], Any]) -> Any:
        """The current result, made anew only when what it is made from has changed.

        Always as read back from the disk, so that the first call gives what later ones give.
        """
        result = self.current(name, basis)
        if result is None:
            self.write(name, basis, make())
            result = self.current(name, basis)
        return result

    def is_newest(self, name: str) -> bool:
        """Whether a file is younger than every result that it may tell of."""
        told = [self.folder / n for n in (name, *TOLD)]
        times = [path.stat().st_mtime_ns for path in told if path.exists()]
        return told[0].exists() and times[0] == max(times)


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """What changed between two bases, one phrase per setting."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
        ]
    return [] if old == new else [f"{at} was {old!r}, is {new!r}"]

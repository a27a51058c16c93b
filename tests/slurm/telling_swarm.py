"""A pretended swarm whose runs tell every step, so that what is trained twice shows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mixlaw.claims import Worker
from mixlaw.runs import RunSpec
from mixlaw.testing import PretendSwarm


class TellingSwarm(PretendSwarm):
    def _after_step(self, step: int, stack: list[RunSpec], worker: Worker) -> None:
        for spec in stack:
            self.store.append_metrics(spec.run_id, [{"step": step}])
        super()._after_step(step, stack, worker)

    def told(self, spec: RunSpec) -> list[int]:
        """The steps of a run in the order made, those made twice twice."""
        content = self.store.storage.read(f"{spec.run_id}/metrics.jsonl") or b""
        lines: Sequence[dict] = [json.loads(line) for line in content.splitlines()]
        return [line["step"] for line in lines if "step" in line]

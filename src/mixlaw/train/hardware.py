"""How a swarm uses the machine: speed and safety, never a loss. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hardware:
    """Settings that may differ from one call to the next on the same runs.

    Attributes:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        stack_size: the most proxies that train together; None: 8 on a CPU, on a GPU as many as its
            free memory holds.
        compile: use torch.compile on the model: faster steps after a minute or so; for GPUs.
        checkpoint_seconds: between checkpoints; longer where writing one takes more than 2 %. 0: at
            every line of metrics.
        report_steps: steps between lines of metrics and looks at the losses' health.
        lease_seconds: a worker on another machine that shows no sign of life for so long is dead.
        stuck_seconds: a worker whose training makes no step for so long ends itself; None: never.
    """

    device: str = "auto"
    stack_size: int | None = None
    compile: bool = False
    checkpoint_seconds: float = 20.0
    report_steps: int = 10
    lease_seconds: float = 60.0
    stuck_seconds: float | None = 1800.0

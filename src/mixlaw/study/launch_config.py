"""The section of a study file on where its proxies are trained; it decides no loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixlaw.study.section import Count, Positive, Section

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RayConfig(Section):
    """See `launch.ray.Resources` and `RayLauncher`."""

    address: str | None = None
    cpus: Amount = 1.0
    gpus: Amount | None = None
    autoscaling: bool = False


class SlurmConfig(Section):
    """See `launch.slurm.SlurmOptions`."""

    partition: str | None = None
    account: str | None = None
    minutes: Count = 240
    gpus_per_process: Annotated[int, Field(ge=0)] = 1
    cpus_per_process: Count = 4
    memory_gb: Positive | None = None
    parallel: Count = 16
    warning_seconds: Count = 120
    extra: dict[str, str | int | bool] = {}


class LaunchConfig(Section):
    """`runs` is the folder or URL (s3://...) of the run folders, default: `runs` beside the study;
    `workers` are processes of this machine; `track` names tools that show the curves."""

    launcher: Literal["local", "ray", "slurm"] = "local"
    workers: Count | None = None
    runs: str | None = None
    track: list[str] = []
    max_attempts: Count = 3
    ray: RayConfig = RayConfig()
    slurm: SlurmConfig = SlurmConfig()

    @model_validator(mode="after")
    def _reachable(self) -> LaunchConfig:
        if self.runs is not None and self.runs.startswith("memory:"):
            raise ValueError(
                f"runs is {self.runs}, the memory of one process, where no worker finds them; give "
                "a folder or a bucket"
            )
        return self

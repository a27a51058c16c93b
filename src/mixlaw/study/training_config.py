"""The sections of a study file on training: what decides the losses, and what only the speed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mixlaw.study.section import Count, Positive, Section, Share
from mixlaw.train.hardware import Hardware
from mixlaw.train.recipe import ModelConfig, Recipe, Size, non_embedding_params
from mixlaw.train.sizes import NAMED_SIZES, NamedSize, default_learning_rate


def _ascending(steps: list[int]) -> list[int]:
    if sorted(set(steps)) != steps:
        raise ValueError(f"horizon_steps are {steps}; they must ascend without repeats")
    return steps


Horizons = Annotated[list[Count], Field(min_length=1), AfterValidator(_ascending)]


class SizeConfig(Section):
    """An architecture, by its name alone (see `train.sizes`) or by width and layers.

    What is not given here is as `training` says, and what it does not say, as the name says.
    `processes` that train one run together each take a part of the batch.
    """

    width: Count | None = None
    layers: Count | None = None
    head_width: Count | None = None
    mlp_ratio: Count | None = None
    learning_rate: Positive | None = None
    batch_size: Count | None = None
    sequence_length: Count | None = None
    warmup_steps: Count | None = None
    horizon_steps: Horizons | None = None
    processes: Count = 1

    @model_validator(mode="after")
    def _heads(self) -> SizeConfig:
        if (self.width is None) != (self.layers is None):
            raise ValueError("give both width and layers, or neither for a size known by its name")
        return self

    def named(self, name: str) -> NamedSize:
        """What the name stands for, with the shape that is given here. Raises: ValueError."""
        if self.width is not None and self.layers is not None:
            base = NamedSize(self.width, self.layers)
        elif name in NAMED_SIZES:
            base = NAMED_SIZES[name]
        else:
            raise ValueError(
                f"size {name!r} has no width and layers, and is none of the known sizes: "
                f"{', '.join(NAMED_SIZES)}"
            )
        given = {"head_width": self.head_width, "mlp_ratio": self.mlp_ratio}
        named = NamedSize(**{**vars(base), **{k: v for k, v in given.items() if v is not None}})
        if named.width % named.head_width or named.head_width % 2:
            raise ValueError(
                f"size {name!r}: width is {named.width} and head width {named.head_width}; the "
                "width must be a multiple of the head width, and that be even"
            )
        return named

    def num_params(self, name: str) -> int:
        """Non-embedding parameters."""
        named = self.named(name)
        return non_embedding_params(named.width, named.layers, named.mlp_ratio)

    def recipe(self, name: str, training: TrainingConfig) -> Recipe:
        """How a run of this size is trained."""
        named = self.named(name)
        by_size = ("batch_size", "sequence_length", "warmup_steps")
        own = {
            key: getattr(self, key) or getattr(training, key) or getattr(named, key)
            for key in by_size
        }
        own["learning_rate"] = (
            self.learning_rate or named.learning_rate or default_learning_rate(named.width)
        )
        return Recipe(**own, **training.model_dump(exclude={"sizes", "horizon_steps", *by_size}))

    def build(self, name: str, training: TrainingConfig, vocab_size: int) -> Size:
        """The architecture for a vocabulary, with its recipe."""
        named = self.named(name)
        shape = (named.width, named.layers, named.head_width, named.mlp_ratio)
        config = ModelConfig(vocab_size, *shape)
        return Size(config, self.recipe(name, training), self.processes)


class TrainingConfig(Section):
    """What decides the losses, see `train.recipe.Recipe`.

    `batch_size`, `sequence_length` and `warmup_steps` hold for sizes that do not give their own;
    without them a size has those of its name, 8 x 64 tokens and 30 steps where it has none.
    """

    sizes: list[str] = Field(min_length=1)
    horizon_steps: Horizons
    batch_size: Count | None = None
    sequence_length: Count | None = None
    warmup_steps: Count | None = None
    schedule: Literal["wsd", "cosine"] = "wsd"
    decay_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    final_rate: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    clip: Positive = 1.0
    precision: Literal["float32", "bf16", "float64"] = "float32"
    evaluation_tokens: Count = 16_384

    @model_validator(mode="after")
    def _distinct(self) -> TrainingConfig:
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"sizes are {self.sizes}; name each once")
        return self


class HardwareConfig(Section):
    """How the machines are used; decides no loss. See `train.hardware.Hardware`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    stack_size: Count | None = None
    compile: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    report_steps: Count = 10
    lease_seconds: Positive = 60.0
    stuck_seconds: Positive | None = 1800.0

    def build(self) -> Hardware:
        return Hardware(**self.model_dump())

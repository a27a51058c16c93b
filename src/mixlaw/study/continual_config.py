"""The section of a study file on continuing a trained model on new domains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from mixlaw.continual.forms import FEWEST_SHARES
from mixlaw.errors import MixlawError
from mixlaw.mixture import Mixture
from mixlaw.runs import UNITS
from mixlaw.study.decision_config import Shares
from mixlaw.study.section import Count, Positive, Section, Share
from mixlaw.study.training_config import Horizons

if TYPE_CHECKING:
    from mixlaw.study.config import StudyConfig

Rise = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BaseConfig(Section):
    """The model that is continued: trained here on a mixture of old domains (the default, in their
    natural one), a model file that mixlaw kept, or known by its losses alone."""

    mixture: Shares | None = None
    checkpoint: str | None = None
    losses: dict[str, Positive] | None = None

    @model_validator(mode="after")
    def _one(self) -> BaseConfig:
        if len(self.model_fields_set) > 1:
            given = sorted(self.model_fields_set)
            raise ValueError(f"the base is given by {given}; give one of them")
        for target in self.losses or ():
            if target.partition("/")[0] not in UNITS or not target.partition("/")[2]:
                raise ValueError(
                    f"{target!r} is no target; a loss of the base is for instance loss/web: 2.3"
                )
        return self


class ContinualConfig(Section):
    """Which domains are new, from what model, and at which shares of new data it is continued.

    Attributes:
        old: default: all other domains.
        shares: of new data in the continued runs; the rest is replay of old data. Without any the
            old losses leap, which bends a law where nothing is decided: 1 is not among them.
        horizon_steps: of the continued runs; default: as those of the swarm.
        rewarm: peak learning rates, as shares of the size's own.
        optimizer: whether the moments of Adam go on.
        seeds: of the data order, each a run more.
        tolerance: how far old targets may rise above their base values, in their unit; one for
            all, or target -> rise.
        new_mixture, old_mixture: within each side; default: as the base was trained here, else
            natural. With a table: at which to answer, where its runs vary it; default: their mean.
        sizes: default: those of training.
        targets: target -> side, of those that are not named after a domain.
    """

    new: list[str] = Field(min_length=1)
    old: Annotated[list[str], Field(min_length=1)] | None = None
    base: BaseConfig = BaseConfig()
    shares: list[Share] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.75]
    horizon_steps: Horizons | None = None
    rewarm: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    optimizer: bool = False
    seeds: Count = 1
    tolerance: Rise | dict[str, Rise] = 0.0
    new_mixture: Shares | None = None
    old_mixture: Shares | None = None
    sizes: Annotated[list[str], Field(min_length=1)] | None = None
    targets: dict[str, Literal["old", "new"]] = {}

    @model_validator(mode="after")
    def _sound(self) -> ContinualConfig:
        for name, given in vars(self).items():
            if isinstance(given, list) and len(set(given)) < len(given):
                raise ValueError(f"{name} are {given}; name each once")
        if len(self.shares) < FEWEST_SHARES:
            raise ValueError(
                f"shares are {self.shares}; at least {FEWEST_SHARES} different ones are needed to "
                "see how the losses bend"
            )
        if both := sorted(set(self.new) & set(self.old or ())):
            raise ValueError(f"{both} stand in both new and old; a domain is one or the other")
        return self

    def old_of(self, domains: Sequence[str]) -> list[str]:
        """The old domains among all."""
        return self.old or [name for name in domains if name not in self.new]

    def check_domains(self, domains: Sequence[str]) -> None:
        """Raises: ValueError: a name that is no domain, or no old domain is left."""
        for key in ("new", "old", "new_mixture", "old_mixture"):
            if strangers := sorted(set(getattr(self, key) or ()) - set(domains)):
                raise ValueError(
                    f"continual.{key} names {strangers}, which are no domains: {list(domains)}"
                )
        if not self.old_of(domains):
            raise ValueError(
                "continual.new names every domain; what is continued needs old domains, to replay "
                "and to lose"
            )

    def check_mixtures(self, domains: Sequence[str]) -> None:
        """Raises: ValueError: one that is no mixture, or of domains of another side."""
        given = {
            "new_mixture": (self.new_mixture, self.new),
            "old_mixture": (self.old_mixture, self.old_of(domains)),
            "base.mixture": (self.base.mixture, domains),
        }
        for key, (shares, side) in given.items():
            if shares is None:
                continue
            if strangers := sorted(set(shares) - set(side)):
                raise ValueError(f"continual.{key} names {strangers}, not among {[*side]}")
            try:
                Mixture(shares)
            except MixlawError as error:
                raise ValueError(f"continual.{key}: {error}") from error

    def check_training(self, config: StudyConfig) -> None:
        """What a study that trains may not say. Raises: ValueError."""
        domains = list(config.domains)
        self.check_domains(domains)
        self.check_mixtures(domains)
        old, base = self.old_of(domains), self.base
        if base.losses is not None:
            raise ValueError(
                "continual.base.losses are for a table of runs; here they are measured before the "
                "first step of each continued run: give base.mixture, base.checkpoint or neither"
            )
        if base.mixture and math.fsum(base.mixture.get(name, 0.0) for name in old) <= 0:
            raise ValueError(f"continual.base.mixture has nothing of the old domains {old}")
        sizes = self.sizes_of(config)
        if strangers := sorted(set(sizes) - set(config.sizes)):
            raise ValueError(f"continual.sizes {strangers} are not among sizes: {[*config.sizes]}")
        if base.checkpoint is not None and len(sizes) > 1:
            raise ValueError(
                f"continual.base.checkpoint is a model of one size, and {sizes} are to be "
                "continued; say which it is with continual.sizes: [...]"
            )

    def check_table(self) -> None:
        """What a table of continued runs says itself. Raises: ValueError."""
        told = {"new", "old", "base", "tolerance", "targets", "new_mixture", "old_mixture"}
        if idle := sorted(f"continual.{key}" for key in self.model_fields_set - told):
            raise ValueError(f"with a table of finished runs {idle} would do nothing; remove them")
        if self.base.model_fields_set - {"losses"}:
            raise ValueError(
                "with a table of finished runs nothing is trained; give the losses of the model "
                "that they continued: base: {losses: {loss/web: 2.3}}, or columns start/<target>"
            )

    def sizes_of(self, config: StudyConfig) -> list[str]:
        """The sizes that are continued. There is a training section."""
        assert config.training is not None, "a study that trains has the section"
        return self.sizes or config.training.sizes

    def horizons_of(self, size: str, config: StudyConfig) -> list[int]:
        """Steps of the continued runs of a size."""
        return self.horizon_steps or config.horizon_steps(size)

    def first_measured(self, config: StudyConfig) -> list[tuple[str, int]]:
        """The earliest step at which a base and a continued run of each size is measured."""
        sizes = self.sizes_of(config)
        found = [(size, self.horizons_of(size, config)[0]) for size in sizes]
        if self.base.checkpoint is None:
            found += [(size, config.horizon_steps(size)[-1]) for size in sizes]
        return found

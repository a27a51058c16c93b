"""The section of a study file on the trainer that gets the mixture, and baselines that are read
from a trainer's config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mixlaw.errors import ExportError, MixlawError
from mixlaw.interop.exporters import exporter
from mixlaw.mixture import Mixture
from mixlaw.study.decision_config import Shares
from mixlaw.study.section import Count, Positive, Section

DOMAIN = "{domain}"
"""Stands for the name in a pattern of paths."""


def _known(trainer: str) -> str:
    try:
        exporter(trainer)
    except ExportError as error:
        raise ValueError(str(error)) from error
    return trainer


Trainer = Annotated[str, AfterValidator(_known)]


class PathsConfig(Section):
    """Where each domain's data lie, in the trainer's own terms; in the file, a pattern with
    {domain}, or a mapping domain -> path or paths."""

    pattern: str | None = None
    by_domain: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _names_the_domain(self) -> PathsConfig:
        if self.pattern is not None and DOMAIN not in self.pattern:
            raise ValueError(
                f"{self.pattern!r} is one path for all domains; write {DOMAIN} where its name "
                "stands, or name the domain of each path"
            )
        return self

    def of(self, domain: str) -> tuple[str, ...]:
        """The paths of a domain; none where nothing is said of it."""
        if domain in self.by_domain:
            return tuple(self.by_domain[domain])
        return () if self.pattern is None else (self.pattern.replace(DOMAIN, domain),)

    def with_(self, other: PathsConfig) -> PathsConfig:
        """What `other` says instead, and beside it what it leaves open."""
        if other.pattern is not None:
            return other
        return PathsConfig(pattern=self.pattern, by_domain={**self.by_domain, **other.by_domain})


def _paths(value: Any) -> Any:
    if isinstance(value, str):
        return {"pattern": value}
    if isinstance(value, Mapping):
        return {
            "by_domain": {
                name: [path] if isinstance(path, str) else path for name, path in value.items()
            }
        }
    return value


class ExportConfig(Section):
    """What `mixlaw export` tells a trainer beside the mixture; see `mixlaw.interop.Handover`.

    Paths are written as they stand here: they are the trainer's, on whichever machine it runs.
    """

    to: Trainer | None = None
    paths: Annotated[PathsConfig, BeforeValidator(_paths)] = PathsConfig()
    sequence_length: Count | None = None
    batch_sequences: Count | None = None
    mean_document_tokens: dict[str, Positive] = {}

    def with_(self, other: ExportConfig) -> ExportConfig:
        """What `other` says instead, and beside it what it leaves open."""
        said = {name: getattr(other, name) for name in other.model_fields_set}
        said = {name: value for name, value in said.items() if value is not None}
        merged = {
            "paths": self.paths.with_(other.paths),
            "mean_document_tokens": {**self.mean_document_tokens, **other.mean_document_tokens},
        }
        return self.model_copy(update=said | merged)


class BaselineConfig(Section):
    """A mixture to compare with: shares (in the file, a plain mapping), or a trainer's config that
    holds one."""

    shares: Shares | None = None
    file: str | None = None
    format: Trainer | None = None

    @field_validator("file")
    @classmethod
    def _beside_the_study(cls, file: str | None, info: ValidationInfo) -> str | None:
        folder = (info.context or {}).get("folder")
        return file if file is None or folder is None else str(Path(folder) / file)

    @model_validator(mode="after")
    def _one(self) -> BaselineConfig:
        if self.shares is None and (self.file is None or self.format is None):
            raise ValueError(
                "a baseline is shares (web: 0.6, code: 0.4), or a trainer's config "
                "(file: blend.json, format: megatron)"
            )
        if self.shares is not None:
            try:
                Mixture(self.shares)
            except MixlawError as error:
                raise ValueError(str(error)) from error
        return self


def _baseline(value: Any) -> Any:
    # A domain may be called "file"; what stands at it is then a number.
    names_a_file = isinstance(value, Mapping) and any(
        isinstance(value.get(key), str) for key in ("file", "format")
    )
    return value if names_a_file or not isinstance(value, Mapping) else {"shares": value}


ABaseline = Annotated[BaselineConfig, BeforeValidator(_baseline)]

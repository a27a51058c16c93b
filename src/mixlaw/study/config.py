"""The study file: what it may say, checked before anything runs."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)

from mixlaw.errors import MixlawError, StudyError
from mixlaw.files import parse_yaml
from mixlaw.names import fault
from mixlaw.study.continual_config import ContinualConfig
from mixlaw.study.decision_config import (
    AnObjective,
    ConstraintsConfig,
    OptimizeConfig,
    PlanConfig,
    TargetConfig,
)
from mixlaw.study.export_config import ABaseline, ExportConfig
from mixlaw.study.launch_config import LaunchConfig
from mixlaw.study.schedule_config import ScheduleConfig
from mixlaw.study.section import Count, Positive, Section, Share
from mixlaw.study.training_config import HardwareConfig, Horizons, SizeConfig, TrainingConfig
from mixlaw.train.recipe import Recipe


class TokensConfig(Section):
    """Ready token files; a domain that is only measured needs no `train`."""

    valid: str
    train: str | None = None


class DomainConfig(Section):
    """Where a domain's text or tokens lie, and how much of it there is."""

    paths: list[str] = []
    environment: str | None = None
    tokens: TokensConfig | None = None
    validation_paths: list[str] = []
    available_tokens: Count | None = None
    max_bytes: Count | None = None


class TokenizerConfig(Section):
    """`bpe` is trained on the spot, `file` a tokenizer.json, `ids` says that every domain is ready
    token files."""

    kind: Literal["byte", "bpe", "file", "ids"] = "byte"
    vocab_size: Count | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> TokenizerConfig:
        if self.kind in ("bpe", "ids") and self.vocab_size is None:
            raise ValueError(f"a tokenizer of kind {self.kind!r} needs vocab_size")
        if self.kind == "file" and self.path is None:
            raise ValueError("a tokenizer of kind 'file' needs path: tokenizer.json")
        return self


class DesignConfig(Section):
    """Which mixtures the proxies train on.

    `temperature` smooths the natural mixture that the Dirichlet draws are centred on.
    `max_epochs` caps a domain's share so that no proxy repeats its text more often; up to 4 passes
    are nearly as good as new text (Muennighoff et al., arXiv 2305.16264).
    `match_repetition` cuts each domain's text so that the proxies of the longest horizon repeat it
    as often as the target run will (Zhou et al., arXiv 2606.07597).
    """

    method: str = "maximin"
    mixtures: Annotated[int, Field(ge=1)] = 24
    min_share: Share = 0.01
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    lower: dict[str, Share] = {}
    upper: dict[str, Share] = {}
    max_epochs: Positive | None = 4.0
    match_repetition: bool = False
    replicated_mixtures: Annotated[int, Field(ge=0)] = 2
    replicate_seeds: Annotated[int, Field(ge=2)] = 3


class VerifyConfig(Section):
    horizon_steps: Horizons | None = None
    seeds: Annotated[int, Field(ge=1)] = 2


class FitConfig(Section):
    """`chance` is the score of guessing, per task (`score/<task>`), for links from losses."""

    laws: list[str] | None = None
    chance: dict[str, Share] = {}
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.9


class StudyConfig(Section):
    """One decision: domains, runs (to train, or a table), objective, constraints, target scale."""

    seed: Annotated[int, Field(ge=0)] = 0
    domains: dict[str, DomainConfig] = {}
    validation_only: dict[str, DomainConfig] = {}
    validation_bytes: Count = 200_000
    tokenizer: TokenizerConfig = TokenizerConfig()
    table: str | None = None
    sizes: dict[str, SizeConfig] = {}
    design: DesignConfig = DesignConfig()
    training: TrainingConfig | None = None
    hardware: HardwareConfig = HardwareConfig()
    launch: LaunchConfig = LaunchConfig()
    fit: FitConfig = FitConfig()
    objective: AnObjective
    tradeoffs: dict[str, AnObjective] = {}
    baselines: dict[str, ABaseline] = {}
    optimize: OptimizeConfig = OptimizeConfig()
    plan: PlanConfig = PlanConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    target: TargetConfig = TargetConfig()
    verify: VerifyConfig = VerifyConfig()
    continual: ContinualConfig | None = None
    schedule: ScheduleConfig | None = None
    export: ExportConfig = ExportConfig()

    @property
    def target_params(self) -> int | None:
        """Parameters of the target, given as such or by its size."""
        target = self.target
        return target.num_params if target.size is None else self.num_params(target.size)

    def num_params(self, size: str) -> int:
        """Parameters of one of the sizes."""
        return self.sizes[size].num_params(size)

    def recipe(self, size: str) -> Recipe:
        """How one of the sizes is trained. There is a training section."""
        assert self.training is not None, "a study that trains has the section"
        return self.sizes[size].recipe(size, self.training)

    def horizon_steps(self, size: str) -> list[int]:
        """Of the swarm's runs of one size."""
        assert self.training is not None, "a study that trains has the section"
        return self.sizes[size].horizon_steps or self.training.horizon_steps

    def longest_tokens(self, size: str) -> int:
        """Training tokens of the longest horizon of one size."""
        return self.horizon_steps(size)[-1] * self.recipe(size).tokens_per_step

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if self.table is not None:
            self._only_a_table()
        for names in self._names():
            if problem := fault(names):
                raise ValueError(problem)
        if self.table is None and (not self.domains or self.training is None):
            raise ValueError("give domains, sizes and training, or a table of finished runs")
        for section, name, what in (
            (self.baselines, "recommended", "the decision's own mixture"),
            (self.baselines, "natural", "the mixture by available tokens"),
            (self.baselines, "uniform", "the mixture of equal shares"),
            (self.baselines, "unimax", "the capped uniform mixture"),
            (self.tradeoffs, "objective", "the study's own objective"),
        ):
            if name in section:
                raise ValueError(f"{name!r} is the name of {what}; choose another")
        both = sorted(set(self.domains) & set(self.validation_only))
        if both:
            raise ValueError(f"{both} stand in both domains and validation_only")
        for name, size in self.sizes.items():
            size.named(name)  # raises where the name is not known
        wanted = list(self.training.sizes) if self.training else []
        wanted += [self.target.size] if self.target.size else []
        for size in wanted:
            if size not in self.sizes:
                raise ValueError(f"size {size!r} is not among sizes: {list(self.sizes)}")
        if self.table is None:
            for name, domain in {**self.domains, **self.validation_only}.items():
                given = [bool(domain.paths), bool(domain.environment), bool(domain.tokens)]
                if sum(given) != 1:
                    raise ValueError(f"domain {name!r} needs one of paths, environment, tokens")
        if self.design.match_repetition:
            self._target_repetition_is_known()
        if self.continual is not None:
            if self.table is None:
                self.continual.check_training(self)
            else:
                self.continual.check_table()
        if self.schedule is not None and self.training is not None:
            self.schedule.check_training(self)
        if self.training is not None:
            self._schedules_finish(self.training.sizes)
        return self

    def _names(self) -> Iterator[Iterable[str]]:
        """The names that this file gives, those together that stand side by side."""
        yield [*self.domains, *self.validation_only]
        yield from (self.baselines, self.tradeoffs, self.constraints.groups, self.sizes)
        yield from (objective.families for objective in (self.objective, *self.tradeoffs.values()))

    def _schedules_finish(self, trained: list[str]) -> None:
        """A loss is of a finished schedule: past the warm-up, and with steps of decay."""
        horizons = {size: self.horizon_steps(size) for size in trained}
        if self.target.size and self.verify.horizon_steps:
            horizons.setdefault(self.target.size, self.verify.horizon_steps)
        measured = [(size, steps[0]) for size, steps in horizons.items()]
        if self.continual is not None:
            measured += self.continual.first_measured(self)
        for size, first in measured:
            recipe = self.recipe(size)
            decay_begins = recipe.branch_step(first)
            if decay_begins < recipe.warmup_steps or decay_begins == first:
                raise ValueError(
                    f"size {size!r} is measured after {first} steps, where its learning rate falls "
                    f"from step {decay_begins} on and rises until step {recipe.warmup_steps}; "
                    "lengthen horizon_steps, or set warmup_steps and decay_fraction so that a "
                    "horizon has both"
                )

    def _target_repetition_is_known(self) -> None:
        missing = [] if self.target.train_tokens else ["target.train_tokens"]
        missing += [
            f"domains.{name}.available_tokens"
            for name, domain in self.domains.items()
            if domain.available_tokens is None
        ]
        if missing:
            raise ValueError(
                "design.match_repetition repeats each domain as the target run will; say how often "
                f"that is with {missing}, or set match_repetition: false"
            )

    def _only_a_table(self) -> None:
        """A study of finished runs trains nothing: settings of training would do nothing."""
        idle = {"training", "design", "tokenizer", "validation_only", "verify", "sizes"}
        idle |= {"hardware", "launch"}
        idle &= self.model_fields_set
        for name, domain in self.domains.items():
            idle |= {f"domains.{name}.{key}" for key in domain.model_fields_set}
            idle -= {f"domains.{name}.available_tokens"}
        if self.schedule is not None:
            idle |= {f"schedule.{key}" for key in self.schedule.model_fields_set - {"stages"}}
        if idle:
            raise ValueError(
                f"with a table of finished runs {sorted(idle)} would do nothing; remove them, "
                "or remove the table"
            )


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key may not be given twice."""


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float):
            raise StudyError(f"line {key_node.start_mark.line + 1}: {key!r} cannot be a name")
        if key in seen:
            raise StudyError(
                f"line {key_node.start_mark.line + 1}: {key!r} is named twice "
                f"(first on line {seen[key]}); each name must be unique"
            )
        seen[key] = key_node.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def load_config(path: Path) -> StudyConfig:
    """Read and check a study file.

    Raises: StudyError: every problem found, with the nearest valid name for an unknown key.
    """
    try:
        data = read_yaml(path)
    except OSError as error:
        given = shlex.quote(str(path.parent))
        remedy = f"create one with: mixlaw init {given}"
        if path.parent.is_file():  # a table of runs, most likely
            remedy = f"of a table of runs it is made by: mixlaw import {given} --into my-study"
        raise StudyError(f"no study file at {path} ({error.strerror}); {remedy}") from error
    try:
        return StudyConfig.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        problems = [explain(problem, StudyConfig) for problem in error.errors()]
        raise StudyError(f"{path}: " + "; ".join(problems)) from None
    except MixlawError as error:
        raise StudyError(f"{path}: {error}") from error


def read_yaml(path: Path) -> dict[Any, Any]:
    """The settings in a file that a person writes.

    Raises: StudyError: no YAML, not a mapping, or a key that is given twice. OSError.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"), _StrictLoader)
    except ValueError as error:  # not UTF-8 is one, too
        raise StudyError(f"{path} is not valid YAML: {error}") from error
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise StudyError(f"{path} holds {type(data).__name__}, not a mapping of settings")
    return data


MOVED = {
    "training.stack_size": "hardware: {stack_size: ...}",
    "training.workers": "launch: {workers: ...}",
    "training.checkpoint_steps": "hardware: {checkpoint_seconds: ...}",
}


def explain(problem: Any, root: type[BaseModel]) -> str:
    """A problem of a file whose sections are those of `root`, in words."""
    # Of "a number or a mapping" the problem names which was tried; the file knows one key.
    tried = ("constrained-", "literal[", "dict[")
    where = ".".join(str(key) for key in problem["loc"] if not str(key).startswith(tried))
    if problem["type"] == "extra_forbidden":
        section = _section_at(problem["loc"][:-1], root)
        key = str(problem["loc"][-1])
        if where in MOVED:
            return f"unknown key {where!r}; it is {MOVED[where]} now"
        near = difflib.get_close_matches(key, section, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(section)}"
        return f"unknown key {where!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    seen = problem["input"]
    value = f" (given: {seen!r})" if isinstance(seen, str | int | float | bool | None) else ""
    return f"{where}: {message}{value}" if where else message


def _section_at(location: tuple, root: type[BaseModel]) -> list[str]:
    """Names of the keys valid at a place in the file."""
    kind: Any = root
    for step in location:
        kind = _inside(kind, step)
    return list(kind.model_fields)


def _inside(kind: Any, step: str | int) -> Any:
    """The kind of what stands at `step` in a section, a mapping or a list."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        inner = kind.model_fields[str(step)].annotation
    else:
        inner = get_args(kind)[-1]
    if get_origin(inner) is Annotated:
        inner = get_args(inner)[0]
    if get_origin(inner) is UnionType:  # a section or None
        inner = get_args(inner)[0]
    return inner

"""Plain JSON and YAML: shares of tokens, and what they come to in tokens, samples and epochs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mixlaw.errors import ExportError
from mixlaw.files import parse_json, parse_yaml
from mixlaw.interop.handover import TOKEN, Exported, Handover, sample_counts, without_zeros
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, json_key, whole, yaml_key
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

FORMAT = 1
"""Of the file; a reader of its own refuses later ones."""


class Json:
    """For a loader of one's own: a JSON file with all that is known.

    Each stage has its share of the run and, where the run's tokens and their length are known, the
    samples that it draws, split among the domains by largest remainder, at least one each; tokens
    and epochs are what the stage draws, where the tokens of the run and those available are known.
    """

    name = "json"
    what = "plain JSON: weights, tokens, samples and epochs"
    schedules = True
    checked = "its own reader"
    file = "mixture.json"

    def export(self, handover: Handover) -> Exported:
        """The mixture as a file. Raises: ExportError: more domains than samples in a stage."""
        counts = sample_counts(handover, "the run")
        data = _header(handover) | {"stages": _stages(handover, counts)}
        notes = []
        if counts is None:
            notes.append(
                "no counts of samples: train_tokens and sequence_length are not both known"
            )
        if not handover.available_tokens:
            notes.append("no epochs: available_tokens is not known")
        how = f"open {self.file}; draw each stage's domains by weight (of tokens)"
        return Exported(
            {self.file: self._write(data)},
            _realised(handover, data["stages"]),
            TOKEN,
            how + ("" if counts is None else " or by their counts of samples"),
            tuple(notes),
        )

    def snippet(self, handover: Handover) -> Snippet:
        """Domain -> weight, without what only one mixture has: tokens, samples and epochs."""
        before, key, between, after = self._form
        lines = tuple((key(name), "") for name in handover.domains)
        return Snippet(
            file=self.file,
            entries=whole(handover.domains),
            parts=(Part(before, lines, between),),
            after=after,
            unit=TOKEN,
        )

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """A file of `export`, or just {domain: weight}. Raises: ExportError: neither."""
        with reading(
            path, "a mixture: {name: weight}, or stages of {share, domains: {name: {weight}}}"
        ):
            data = self._parse(path.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or not data:
                raise ExportError(
                    f"{path} holds {type(data).__name__}, no mixture; it must map domains to "
                    "weights"
                )
            if not isinstance(data.get("stages"), list):
                return Schedule.static(gather(data.items(), domains, str(path)))
            if data.get("format") != FORMAT:
                raise ExportError(
                    f"{path} has format {data.get('format')!r}; this version reads format {FORMAT}"
                )
            return Schedule.of(
                (stage["share"], _weights(stage["domains"], domains, str(path)))
                for stage in data["stages"]
            )

    @property
    def _form(self) -> tuple[str, Callable[[str], str], str, str]:
        """Of a mapping: its beginning, its keys, what is between lines, and its end."""
        return "{\n", json_key, ",\n", "\n}\n"

    def _write(self, data: Mapping[str, Any]) -> str:
        return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def _parse(self, text: str) -> Any:
        return parse_json(text)


class Yaml(Json):
    """The same as YAML."""

    name = "yaml"
    what = "plain YAML: weights, tokens, samples and epochs"
    file = "mixture.yaml"

    @property
    def _form(self) -> tuple[str, Callable[[str], str], str, str]:
        return "", yaml_key, "\n", "\n"

    def _write(self, data: Mapping[str, Any]) -> str:
        return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)

    def _parse(self, text: str) -> Any:
        return parse_yaml(text)


def _weights(parts: Mapping[str, Mapping[str, Any]], domains: Sequence[str], where: str) -> Mixture:
    return gather([(name, part["weight"]) for name, part in parts.items()], domains, where)


def _header(handover: Handover) -> dict[str, Any]:
    known = {
        "train_tokens": handover.train_tokens,
        "sequence_length": handover.sequence_length,
        "batch_sequences": handover.batch_sequences,
    }
    return {
        "format": FORMAT,
        "name": handover.name,
        "unit": TOKEN,
        "seed": handover.seed,
        **{name: value for name, value in known.items() if value is not None},
    }


def _stages(handover: Handover, counts: Sequence[Mapping[str, int]] | None) -> list[dict[str, Any]]:
    stages = []
    for i, stage in enumerate(handover.schedule.stages):
        entry: dict[str, Any] = {"share": stage.share}
        drawn = {} if counts is None else counts[i]
        if drawn:
            entry["samples"] = sum(drawn.values())
        entry["domains"] = {
            name: _domain(handover, name, share * stage.share, share, drawn.get(name))
            for name, share in without_zeros(stage.mixture).items()
        }
        stages.append(entry)
    return stages


def _domain(
    handover: Handover, name: str, of_run: float, weight: float, samples: int | None
) -> dict[str, Any]:
    """What a stage gives one domain; `of_run` is its share of all of the run's tokens."""
    entry: dict[str, Any] = {"weight": weight}
    tokens = None if handover.train_tokens is None else round(of_run * handover.train_tokens)
    if samples is not None and handover.sequence_length is not None:
        tokens = samples * handover.sequence_length
        entry["samples"] = samples
    if tokens is not None:
        entry["tokens"] = tokens
        if available := handover.available_tokens.get(name):
            entry["epochs"] = tokens / available
    if paths := handover.paths.get(name):
        entry["paths"] = list(paths)
    return entry


def _realised(handover: Handover, stages: Sequence[Mapping[str, Any]]) -> Schedule:
    """By the counts of samples where there are some, else as it was wanted."""
    if not all("samples" in stage for stage in stages):
        return handover.schedule
    whole = sum(stage["samples"] for stage in stages)
    return Schedule.of(
        (
            stage["samples"] / whole,
            Mixture.from_weights({n: part["samples"] for n, part in stage["domains"].items()}),
        )
        for stage in stages
    )

"""Results of the LM Evaluation Harness, and of trainers that write them as it does."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import number_of
from mixlaw.interop.logged import LoggedRun
from mixlaw.interop.metric_names import target_of

_HEAD = 4096
"""Bytes in which the results begin, if a file holds any."""
_NO_MEASURES = frozenset({"alias", "name", "sample_len", "sample_count", " "})


@dataclass(frozen=True)
class _Report:
    """What a file says.

    Attributes:
        date: when it was begun, as it says; else by its name, which ends in the time.
        name: of the model.
        model: the same with its revision: checkpoints of one model are often revisions.
        shots: task -> examples in the prompt.
        measures: by the names of targets where they are some, else "task/metric".
        settings: of the model.
    """

    path: Path
    date: tuple[float, str]
    name: str
    model: str
    shots: Mapping[str, Any]
    measures: Mapping[str, float]
    settings: Mapping[str, Any]


class LmEval:
    """A run for each model, by its name; of several files of a model the newest wins.

    Measures are targets by `metric_names`: "score/piqa/acc_norm", "bpb/wikitext"; others keep their
    own name, "wikitext/word_perplexity". Mixtures are not in these files: they come from planned
    runs.
    Source: lm_eval/loggers/evaluation_tracker.py, result_schema.py.
    """

    name: ClassVar[str] = "lm-eval"
    what: ClassVar[str] = "results_*.json of the LM Evaluation Harness"
    checked: ClassVar[str] = "files written by lm-eval 0.4.13"

    def recognises(self, sources: Sequence[str]) -> bool:
        try:
            return bool(sources) and all(next(_files(source), None) for source in sources)
        except OSError:
            return False

    def files(self, sources: Sequence[str]) -> list[Path]:
        return [path for source in sources for path in _files(source)]

    def read(
        self, sources: Sequence[str], *, names: Collection[str] | None = None
    ) -> Iterator[LoggedRun]:
        """As of `Importer`. Raises: RunTableError: also for a task measured with several numbers
        of examples in its prompt."""
        reports = []
        for source in sources:
            found = list(_files(source))
            if not found:
                raise RunTableError(
                    f"{source}: no results of lm-eval; name results_*.json, or a folder with such"
                )
            reports += map(_report, found)
        models: dict[str, list[_Report]] = {}
        for report in sorted(reports, key=lambda report: report.date):
            models.setdefault(report.model, []).append(report)
        return map(_merged, models.values())


def _files(source: str) -> Iterator[Path]:
    """The files of results at a place."""
    path = Path(source)
    if path.is_file():
        if _looks_so(path):
            yield path
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".json") and _looks_so(found := Path(folder, name)):
                yield found


def _looks_so(path: Path) -> bool:
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD)
    except OSError:
        return False
    return bool(re.search(rb'"results"\s*:\s*\{', head)) and head.lstrip().startswith(b"{")


def _report(path: Path) -> _Report:
    """Raises: RunTableError: it cannot be read, or holds no results."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunTableError(
            f"could not read {path}: {error}; is it cut short? Evaluate again, or leave it out"
        ) from error
    results, config, shots = (found.get(key) or {} for key in ("results", "config", "n-shot"))
    if not all(isinstance(part, Mapping) for part in (results, config, shots)):
        raise RunTableError(f"{path}: no results by task; it must be a file that lm-eval wrote")
    arguments = _arguments(config.get("model_args"))
    name = str(found.get("model_name") or arguments.get("pretrained") or path.parent.name)
    revision = arguments.get("revision", "main")
    settings = {f"model_args.{key}": value for key, value in arguments.items()}
    if "model_num_parameters" in config:
        settings["model_num_parameters"] = config["model_num_parameters"]
    date = found.get("date")
    return _Report(
        path=path,
        date=(date if isinstance(date, int | float) else -math.inf, path.name),
        name=name,
        model=name if revision == "main" else f"{name}@{revision}",
        shots=shots,
        measures={k: v for task in results for k, v in _measures(task, results[task]).items()},
        settings=settings,
    )


def _arguments(given: Any) -> dict[str, Any]:
    """Of the model; text if from the command line: "pretrained=out/m07,dtype=float"."""
    if isinstance(given, Mapping):
        return dict(given)
    pairs = (part.partition("=") for part in str(given or "").split(","))
    return {key.strip(): value for key, equals, value in pairs if equals}


def _measures(task: str, metrics: Any) -> dict[str, float]:
    """Of a task, without standard errors and what has no value."""
    found = {}
    for key, value in metrics.items() if isinstance(metrics, Mapping) else ():
        metric, _, way = key.partition(",")
        if metric in _NO_MEASURES or metric.endswith("_stderr") or isinstance(value, bool):
            continue
        number = number_of(value)
        if isinstance(value, int | float) and number is not None and math.isfinite(number):
            name = f"{task}/{metric}" + (f",{way}" if way not in ("", "none") else "")
            found[target_of(name) or name] = number
    return found


def _merged(reports: Sequence[_Report]) -> LoggedRun:
    """One model, from its reports by date. Raises: RunTableError: a task with several prompts."""
    shots: dict[str, tuple[Any, Path]] = {}
    settings: dict[str, Any] = {}
    measures: dict[str, float] = {}
    renewed = set()
    for report in reports:
        for task, number in report.shots.items():
            known, where = shots.setdefault(task, (number, report.path))
            if known != number:
                raise RunTableError(
                    f"{where} has {task} with {known} examples in the prompt, {report.path} with "
                    f"{number}: these are not to be compared; import them apart"
                )
        renewed |= measures.keys() & report.measures.keys()
        settings |= report.settings
        measures |= report.measures
    notes = [
        f"{len(renewed)} measures are in several of its {len(reports)} files; the newest were "
        f"taken, up to {reports[-1].path.name}"
    ]
    return LoggedRun(
        run=reports[-1].model,
        name=reports[-1].name,
        fields={"model_name": reports[-1].name} | settings | measures,
        origin=", ".join(str(report.path) for report in reports),
        notes=notes if renewed else (),
    )

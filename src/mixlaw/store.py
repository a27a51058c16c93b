"""The folder of a swarm: for each run its result, its checkpoints, its metrics and its claims."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixlaw.errors import CheckpointError, RunTableError
from mixlaw.files import parse_json
from mixlaw.runs import DONE, FAILED, MISSING, RunResult, RunSpec, RunTable, Start
from mixlaw.schedule import Schedule
from mixlaw.storage import Storage, open_storage

RESULT, METRICS, MODEL = "run.json", "metrics.jsonl", "model.safetensors"
MODEL_FORMAT = 1
CHECKPOINT = ("checkpoint-", ".safetensors")
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class ModelFacts:
    """What a kept model says of itself.

    Attributes:
        digest: sha256 of its tensors and of what follows, see `Start`.
        num_params: non-embedding parameters.
        config, recipe: of the size it was trained at, see `mixlaw.train.recipe`.
        vocabulary: "name" and "digest" of its tokenizer.
        updates: of its optimizer so far, also those of models that it continued with their moments.
        optimizer: whether the file has the optimizer's moments.
    """

    digest: str
    num_params: int
    config: Mapping[str, Any]
    recipe: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    updates: int
    optimizer: bool


@contextlib.contextmanager
def reading_model(place: str | Path) -> Iterator[tuple[Path, ModelFacts]]:
    """A local path with a kept model, and its facts as written (the tensors are not read).

    Raises: StorageError: there is no such file; CheckpointError: it is no model that a run kept.
    """
    storage, name = _file_at(place)
    with storage.reading(name) as path:
        yield path, _facts(path, f"{storage.url}/{name}")


def model_facts(place: str | Path) -> ModelFacts:
    """What the kept model at a path or URL is. Needs no torch. Raises: as `reading_model`."""
    with reading_model(place) as (_, facts):
        return facts


def start_from(place: str | Path, *, optimizer: bool = False, rewarm: float = 1.0) -> Start:
    """What a run continues that begins with the kept model at a path or URL.

    Args:
        optimizer, rewarm: see `Start`.
    Raises: as `reading_model`; MixtureError: a rewarm that is not > 0.
    """
    storage, name = _file_at(place)
    return Start(f"{storage.url}/{name}", model_facts(place).digest, optimizer, rewarm)


class RunStore:
    """One folder per run, named by its spec's hash; a result is written whole or not at all.

    Attributes:
        root: the path or URL of the folder of them all.
        storage: the files in it.
    """

    def __init__(self, root: str | Path):
        """Raises: StorageError, MissingExtraError: see `open_storage`."""
        self.storage = open_storage(root)

    def __repr__(self) -> str:
        return f"RunStore({self.root!r})"

    @property
    def root(self) -> str:
        return self.storage.url

    # Results

    def has(self, spec: RunSpec) -> bool:
        """Whether the run is finished; ask `finished` for many at once."""
        return self.storage.read(_result_file(spec)) is not None

    def finished(self) -> set[str]:
        """Ids of the runs that have a result, done or failed."""
        return self.storage.folders_with(RESULT)

    def status(self, run_id: str) -> str:
        """Of a run: done, failed, or missing where it has no result. Raises: as `results`."""
        name = f"{run_id}/{RESULT}"
        content = self.storage.read(name)
        return MISSING if content is None else _result(content, f"{self.root}/{name}").status

    def unfinished(self, specs: Sequence[RunSpec]) -> list[RunSpec]:
        """Those without a result, or without the model that they are to keep."""
        finished = self.finished()
        done = [spec for spec in specs if spec.keep and spec.run_id in finished]
        if done:  # results first: a model is written before its result
            kept = self.models()
            lacking = [spec for spec in done if spec.run_id not in kept]
            results = self.results(lacking)
            finished -= {run for run, result in results.items() if result.status == DONE}
        return [spec for spec in specs if spec.run_id not in finished]

    def save(self, spec: RunSpec, result: RunResult) -> None:
        """Write what a run gave; what is as usual is left out."""
        schedules = [schedule.to_list() for schedule in result.schedules]
        found = {**vars(result), "targets": list(result.targets), "schedules": schedules}
        for key in ("at_start", "schedules"):  # as usual: of a run that began afresh and is static
            if not found[key]:
                del found[key]
        data = {"spec": spec.to_dict(), "result": found}
        text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        self.storage.write(_result_file(spec), text.encode())

    def load(self, spec: RunSpec) -> RunResult:
        """Raises: RunTableError: the run is not in the store."""
        found = self.results([spec])
        if not found:
            raise RunTableError(f"run {spec.label} (seed {spec.seed}) has no result yet; train it")
        return found[spec.run_id]

    def results(self, specs: Sequence[RunSpec]) -> dict[str, RunResult]:
        """Run id -> result of those that are finished. Raises: RunTableError: a damaged one."""
        contents = self.storage.read_all([_result_file(spec) for spec in specs])
        return {
            name.partition("/")[0]: _result(data, f"{self.root}/{name}")
            for name, data in contents.items()
        }

    def table(
        self,
        specs: Sequence[RunSpec],
        domains: Sequence[str],
        *,
        available_tokens: Mapping[str, int] | None = None,
        missing: bool = False,
    ) -> RunTable:
        """The finished runs among `specs` as rows (run, horizon).

        Args:
            available_tokens: domain -> unique tokens that runs without pools drew from.
            missing: also rows of the runs without a result, of status "missing".
        Raises: RunTableError: no run is done.
        """
        results, rows = self.results(specs), []
        for spec in specs:
            result = results.get(spec.run_id, RunResult(MISSING))
            if result.status == MISSING and not missing:
                continue
            unique = spec.pools or available_tokens or {}
            for h, train_tokens in enumerate(spec.horizon_tokens):
                row: dict[str, Any] = {"run": spec.run_id, "label": spec.label, "role": spec.role}
                row |= {"num_params": spec.num_params, "train_tokens": train_tokens}
                row |= {"seed": spec.seed, "status": result.status}
                seen = _mixtures_seen(spec, result, h)
                row |= {f"weight/{name}": seen.dose.get(name, 0.0) for name in domains}
                if not seen.is_static:
                    row["schedule"] = seen.to_list()
                if spec.start is not None:
                    row["rewarm"] = spec.start.rewarm
                row |= {f"available_tokens/{name}": tokens for name, tokens in unique.items()}
                if result.status == DONE:
                    row |= result.targets[h]
                    row |= {f"start/{name}": value for name, value in result.at_start.items()}
                rows.append(row)
        if rows and not any(row["status"] == DONE for row in rows):
            raise RunTableError(_nothing_to_learn(rows))
        return RunTable.from_rows(rows)

    # Checkpoints

    @contextlib.contextmanager
    def save_checkpoint(self, run_id: str, number: int) -> Iterator[Path]:
        """A local path to fill; whole when the block ends well. Kept are this one and the latest
        other.

        Args:
            number: steps done, over the trunk and its branches.
        """
        with self.storage.writing(_checkpoint_file(run_id, number)) as path:
            yield path
        # Only now: whenever the writer is killed, a whole checkpoint is left.
        others = [other for other in self.checkpoints(run_id) if other != number]
        for old in others[CHECKPOINTS_KEPT - 1 :]:
            self.storage.delete(_checkpoint_file(run_id, old))

    def checkpoints(self, run_id: str) -> list[int]:
        """Numbers of the checkpoints there are, the latest first."""
        start, end = CHECKPOINT
        found = [
            name.removeprefix(start).removesuffix(end)
            for name in self.storage.names(run_id)
            if name.startswith(start) and name.endswith(end)
        ]
        return sorted((int(number) for number in found if number.isdigit()), reverse=True)

    def checkpoint_url(self, run_id: str, number: int) -> str:
        """Path or URL of one checkpoint."""
        return f"{self.root}/{_checkpoint_file(run_id, number)}"

    def read_checkpoint(self, run_id: str, number: int) -> contextlib.AbstractContextManager[Path]:
        """A local path with its content. Raises: StorageError: there is none of this number."""
        return self.storage.reading(_checkpoint_file(run_id, number))

    def delete_checkpoint(self, run_id: str, number: int) -> None:
        self.storage.delete(_checkpoint_file(run_id, number))

    def delete_checkpoints(self, run_id: str) -> None:
        """Remove them all, with what killed writers left of some."""
        for number in self.checkpoints(run_id):
            self.storage.delete(_checkpoint_file(run_id, number))
        self.storage.sweep(f"{run_id}/{CHECKPOINT[0]}")

    # Models that others continue from

    def save_model(self, run_id: str) -> contextlib.AbstractContextManager[Path]:
        """A local path to fill with the final model; whole when the block ends well."""
        return self.storage.writing(f"{run_id}/{MODEL}")

    def models(self) -> set[str]:
        """Ids of the runs whose final model is kept."""
        return self.storage.folders_with(MODEL)

    def model_url(self, run_id: str) -> str:
        """Path or URL of the final model of a run."""
        return f"{self.root}/{run_id}/{MODEL}"

    def located(self, start: Start) -> Start:
        """A start whose model is here where it is no longer where it was: who moves a run folder
        moves its models. That it is the same one its digest tells when it is read."""
        storage, name = _file_at(start.checkpoint)
        run_id = start.checkpoint.rpartition("/")[0].rpartition("/")[2]
        if not run_id or name in storage.names() or name not in self.storage.names(run_id):
            return start
        return replace(start, checkpoint=f"{self.root}/{run_id}/{name}")

    def start(self, run_id: str, *, optimizer: bool = False, rewarm: float = 1.0) -> Start:
        """What a run continues that begins where this one ended; see `start_from`."""
        return start_from(self.model_url(run_id), optimizer=optimizer, rewarm=rewarm)

    # Metrics

    def append_metrics(self, run_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, one JSON object each. Raises: ValueError: a NaN or infinity."""
        text = "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in lines)
        self.storage.append(f"{run_id}/{METRICS}", text.encode())

    def metrics(self, run_id: str) -> list[dict[str, Any]]:
        """What a run told, in the order told.

        A run that was killed tells the steps since its checkpoint again when it is resumed, perhaps
        in other portions: what it had told of them is dropped. Of lines of the same event, horizon
        and step the last is kept, in the place of the first. A torn line (the writer was killed) is
        left out.
        """
        content = self.storage.read(f"{run_id}/{METRICS}") or b""
        kept: dict[tuple[Any, Any, Any], dict[str, Any]] = {}
        for line in content.splitlines():
            # Torn, not UTF-8, or no mapping.
            with contextlib.suppress(ValueError, AttributeError, TypeError):
                found = parse_json(line)
                if found.get("event") in ("started", "resumed"):
                    done = found.get("done", 0)
                    again = [k for k, v in kept.items() if not k[0] and v.get("done", 0) > done]
                    for key in again:
                        del kept[key]
                kept[found.get("event"), found.get("horizon"), found.get("step")] = found
        return list(kept.values())


def _mixtures_seen(spec: RunSpec, result: RunResult, horizon: int) -> Schedule:
    """By the run up to a horizon; of an online run that has no result, how it begins."""
    if result.schedules:
        return result.schedules[horizon]
    planned = spec.schedule or Schedule.static(spec.mixture)
    return planned.until(spec.horizon_tokens[horizon] / spec.horizon_tokens[-1])


def _file_at(place: str | Path) -> tuple[Storage, str]:
    """A file's folder, and its name there."""
    folder, _, name = str(place).rpartition("/")
    return open_storage(folder or ("/" if str(place).startswith("/") else "")), name


def _facts(path: Path, place: str) -> ModelFacts:
    """From the header of a safetensors file: its length in 8 bytes, and JSON."""
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("it is cut short")
            header = parse_json(handle.read(length))
        metadata = header["__metadata__"]
        facts = parse_json(metadata["state"])
        if facts["model_format"] != MODEL_FORMAT:
            raise ValueError(f"its format is not {MODEL_FORMAT}")
        del facts["model_format"]
        optimizer = any(name.startswith("model/first/") for name in header)
        return ModelFacts(digest=metadata["sha256"], optimizer=optimizer, **facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{place} is no model that a run kept ({type(error).__name__}: {error}); continue from "
            f"the {MODEL} of a run that was trained with keep"
        ) from error


def _result_file(spec: RunSpec) -> str:
    return f"{spec.run_id}/{RESULT}"


def _checkpoint_file(run_id: str, number: int) -> str:
    return f"{run_id}/{CHECKPOINT[0]}{number:09d}{CHECKPOINT[1]}"


def _result(data: bytes, file: str) -> RunResult:
    """Raises: RunTableError: results are written whole, so the disk or a hand damaged this one."""
    try:
        found = parse_json(data)["result"]
        targets, epochs = tuple(found["targets"]), found.get("epochs", {})
        schedules = tuple(Schedule.from_list(stages) for stages in found.get("schedules", ()))
        at_start = dict(found.get("at_start", {}))
        return RunResult(found["status"], targets, found["reason"], epochs, at_start, schedules)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunTableError(
            f"{file} is damaged ({type(error).__name__}: {error}); delete it, and the next "
            "training trains that run again"
        ) from error


def _nothing_to_learn(rows: Sequence[Mapping[str, Any]]) -> str:
    runs = {
        status: {row["run"] for row in rows if row["status"] == status}
        for status in (FAILED, MISSING)
    }
    if not runs[MISSING]:
        return (
            f"all {len(runs[FAILED])} runs diverged, so there is no loss to learn from; lower "
            "learning_rate of their sizes and train in a new folder"
        )
    diverged = f" ({len(runs[FAILED])} more diverged)" if runs[FAILED] else ""
    return f"none of {len(runs[MISSING])} runs has a result yet{diverged}; train them"

"""Columns found by what they are commonly called, and which of them tell runs apart."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from mixlaw.errors import RunTableError
from mixlaw.interop.frame import Frame, joint_codes
from mixlaw.interop.metric_names import tokens_of
from mixlaw.runs import DONE, FAILED, MISSING

PARAMS = (
    *("num_params_non_embedding", "num_params_nonembedding", "num_non_embedding_params"),
    *("n_params_non_embedding", "n_params_nonembedding", "non_embedding_params"),
    *("non_embedding_parameters", "num_params", "n_params", "params", "num_parameters"),
    *("n_parameters", "parameters", "param_count", "model_params"),
)
NAMED_SIZES = ("model_size", "model", "size")
"""Of models, if they say "30M"; a number is of something else, too often."""
TOKENS = (
    *("train_tokens", "tokens", "tokens_seen", "seen_tokens", "num_tokens", "n_tokens"),
    *("total_tokens", "consumed_tokens", "training_tokens", "num_train_tokens", "token_count"),
)
STEPS = (
    *("step", "global_step", "train_step", "training_step", "iteration", "iter", "steps"),
    *("num_steps", "trainer_global_step", "train_global_step"),
)
TOKENS_PER_STEP = (
    *("tokens_per_step", "tokens_per_batch", "batch_tokens", "global_batch_tokens"),
    *("global_batch_size_tokens", "global_batch_size_in_tokens", "batch_size_tokens"),
)
SEED = ("seed", "random_seed", "global_seed", "train_seed", "training_seed", "data_seed")
RUN = (
    *("run", "run_id", "runid", "run_name", "runname", "id", "uid", "experiment"),
    *("experiment_id", "exp", "exp_id", "exp_name", "job", "job_id", "trial", "name", "index"),
)
STATUS = ("status", "run_status", "state", "run_state")
STATUSES: Mapping[str, str] = {
    **dict.fromkeys(("done", "finished", "complete", "completed", "success", "succeeded"), DONE),
    **dict.fromkeys(("ok",), DONE),
    **dict.fromkeys(("failed", "failure", "fail", "crashed", "crash", "error"), FAILED),
    **dict.fromkeys(("killed", "aborted", "cancelled", "canceled", "diverged", "nan"), FAILED),
    "missing": MISSING,
}
"""Word of a source, in small letters -> what it is to mixlaw."""
_SURE_RUN = RUN[:5]
COUNTED = (*PARAMS, *NAMED_SIZES, *TOKENS, *STEPS, *SEED, *RUN)

_MOST_TO_TRY = 12
"""Columns that may together name a run, beside a size and a seed."""


def snake(name: str) -> str:
    """ "numParams (non-embedding)" -> "num_params_non_embedding"."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def names_runs(column: str) -> bool:
    """Whether a column is called as one of ids, whose text is to be kept."""
    return snake(column) in RUN


def find(frame: Frame, names: Sequence[str], taken: Collection[str] = ()) -> str | None:
    """The column that is called by the first of these names, as a whole or, for a setting, by its
    last part ("config.model.num_params"); None if there is none."""
    return next(iter(find_all(frame, names, taken)), None)


def find_all(frame: Frame, names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """All columns that are called by one of these names, in the order of the names."""
    whole, last = {}, {}
    for column in frame.columns:
        if column in taken:
            continue
        bare = column.removeprefix("config.").removeprefix("summary.")
        whole.setdefault(snake(bare), column)
        if "." in bare:
            last.setdefault(snake(bare.rsplit(".", 1)[1]), column)
    found = [where[name] for where in (whole, last) for name in names if name in where]
    return list(dict.fromkeys(found))


def counted(frame: Frame, names: Sequence[str], taken: Collection[str] = ()) -> str | None:
    """The column of counts above zero ("30M" is one) that is called by one of these names."""
    for column in find_all(frame, names, taken):
        try:
            found = frame.numbers(column, counts=True)
        except RunTableError:
            if frame.table and names is not NAMED_SIZES and frame.holds_counts(column):
                raise  # a typing error, which must not make the counts unknown
            continue
        known = found[~np.isnan(found)]
        if len(known) and (known >= 0).all() and known.max() > 0:
            return column
    return None


def params_column(frame: Frame, taken: Collection[str] = ()) -> str | None:
    """The column of sizes: of counts by their common names, or of texts such as "30M"."""
    numbers = [name for name in frame.columns if frame.is_numeric(name)]
    return counted(frame, PARAMS, taken) or counted(frame, NAMED_SIZES, [*taken, *numbers])


def tokens_column(frame: Frame, taken: Collection[str] = ()) -> str | None:
    """The column of tokens seen: a trainer's counter, or one by its common names."""
    known = (name for name in frame.columns if name not in taken and frame.is_numeric(name))
    return tokens_of(known) or counted(frame, TOKENS, taken)


def run_column(
    frame: Frame, same: Sequence[np.ndarray], along: np.ndarray | None, taken: Collection[str]
) -> str | None:
    """The column that names the runs of a table, or several joined by "+"; None if there is none,
    and each row is a run of its own.

    A column called so is believed, unless one of its names stands for several mixtures, sizes or
    seeds, as where runs are numbered anew in each split: then the fewest columns are added that
    tell these apart. Without one, the fewest columns that tell all checkpoints apart.

    Args:
        same: codes (n,) of what is one within a run: mixture, size, seed.
        along: (n,) tokens or steps, of which a run has each once; None: not known.
    """
    named = [c for c in find_all(frame, RUN, taken) if _first_empty(frame, c) is None]
    if not named:
        _refuse_gaps(frame, taken)
    content = joint_codes(same)
    codes = {name: frame.codes(name) for name in named}
    for name in named:
        if _decides(codes[name], content):
            return name
    extra = _labels(frame, [*named, *taken])
    codes |= {name: frame.codes(name) for name in extra}
    for name in named[:1]:
        for more in _combinations(extra, 2):
            if _decides(joint_codes([codes[name], *(codes[m] for m in more)]), content):
                return "+".join((*more, name))
        return name
    if along is None and content.max() + 1 < len(frame):
        return None  # replicates and copies look alike here
    return _derived(frame, content, along, extra)


def _derived(
    frame: Frame, content: np.ndarray, along: np.ndarray | None, extra: Sequence[str]
) -> str | None:
    """The fewest columns that tell all rows apart but for their progress."""
    numbers = [c for c in (params_column(frame), find(frame, SEED)) if c is not None]
    extra = [name for name in extra if name not in numbers]
    codes = {name: frame.codes(name) for name in (*extra, *numbers)}
    progress = None if along is None else np.unique(along, return_inverse=True)[1].reshape(-1)
    for chosen in _combinations([*extra, *numbers], 3):
        if set(chosen) <= set(numbers):
            continue  # a size or a seed alone names no run
        joint = joint_codes([codes[name] for name in chosen])
        if not _decides(joint, content):
            continue
        rows = joint if progress is None else joint_codes([joint, progress])
        if rows.max() + 1 == len(frame):
            return "+".join(chosen)
    return None


def _first_empty(frame: Frame, name: str) -> int | None:
    """The first row in which a column is empty; None if it never is."""
    cells = frame.columns[name]
    if cells.dtype != object:
        empty = np.flatnonzero(np.isnan(cells))
        return int(empty[0]) if empty.size else None
    return next((i for i, cell in enumerate(cells) if cell is None or cell != cell), None)


def _refuse_gaps(frame: Frame, taken: Collection[str]) -> None:
    """Raises: RunTableError: a column of runs has them in some rows only."""
    for name in find_all(frame, _SURE_RUN, taken):
        if (i := _first_empty(frame, name)) is not None and frame.codes(name).max() > 0:
            raise RunTableError(
                f"{frame.place(i)}: {name} is empty; every row needs its run, or another column "
                "that names the runs (--run)"
            )


def _labels(frame: Frame, taken: Collection[str]) -> list[str]:
    """Columns of texts or whole numbers, which may label groups of rows; texts first."""
    texts, wholes = [], []
    for name, cells in frame.columns.items():
        if name in taken:
            continue
        if cells.dtype == object and not frame.is_numeric(name):
            if all(isinstance(cell, str) for cell in cells[:1000]):
                texts.append(name)
        elif cells.dtype == np.int64:
            wholes.append(name)
    return [*texts, *wholes][:_MOST_TO_TRY]


def _combinations(names: Sequence[str], most: int) -> Iterable[tuple[str, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(names, size) for size in range(1, most + 1)
    )


def _decides(codes: np.ndarray, content: np.ndarray) -> bool:
    """Whether equal codes have equal content."""
    last = np.empty(int(codes.max()) + 1, content.dtype)
    last[codes] = content
    return bool((last[codes] == content).all())

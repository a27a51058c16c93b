"""Readers of what other tools keep of runs; each line here is one of them, in a file of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from mixlaw.errors import RunTableError
from mixlaw.interop.logged import Importer

_HOMES: Mapping[str, str] = {
    "olmix": "mixlaw.interop.importers.olmix:Olmix",
    "regmix": "mixlaw.interop.importers.regmix:RegMix",
    "lm-eval": "mixlaw.interop.importers.lm_eval:LmEval",
    "wandb": "mixlaw.interop.importers.wandb:WeightsAndBiases",
    "tensorboard": "mixlaw.interop.importers.tensorboard:TensorBoard",
    "mlflow": "mixlaw.interop.importers.mlflow:MlFlow",
    "trackio": "mixlaw.interop.importers.trackio:Trackio",
    "table": "mixlaw.interop.importers.table:Table",
}
"""Name -> module and class, loaded when first asked for: some need a library of their own."""

IMPORTERS: tuple[str, ...] = tuple(_HOMES)


def importer(name: str) -> Importer:
    """The importer of a name. Raises: RunTableError: there is none; names the nearest."""
    if name not in _HOMES:
        near = difflib.get_close_matches(name, IMPORTERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RunTableError(f"no kind of source {name!r}; {hint}known are {', '.join(IMPORTERS)}")
    module, _, kind = _HOMES[name].partition(":")
    return getattr(import_module(module), kind)()


def recognise(sources: Sequence[str]) -> Importer:
    """The importer of these sources, the first that recognises them.

    Raises: RunTableError: none does, or a source is not there.
    """
    for source in sources:
        if "://" not in source and not Path(source).exists():
            raise RunTableError(f"no source at {source}; name a file, a folder or an address")
    for name in IMPORTERS:
        if (found := importer(name)).recognises(sources):
            return found
    raise RunTableError(
        f"{', '.join(sources)}: of no kind that is known by its looks; say which it is with "
        f"--kind: {', '.join(IMPORTERS)}"
    )

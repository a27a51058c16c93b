"""Writers of other trainers' configs; each line here is one of them, in a file of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module

from mixlaw.errors import ExportError
from mixlaw.interop.handover import Exporter

_HOMES: Mapping[str, str] = {
    "json": "mixlaw.interop.exporters.plain:Json",
    "yaml": "mixlaw.interop.exporters.plain:Yaml",
    "megatron": "mixlaw.interop.exporters.megatron:Megatron",
    "olmo-core": "mixlaw.interop.exporters.olmo_core:OlmoCore",
    "nanotron": "mixlaw.interop.exporters.nanotron:Nanotron",
    "torchtitan": "mixlaw.interop.exporters.torchtitan:Torchtitan",
    "levanter": "mixlaw.interop.exporters.levanter:Levanter",
    "streaming": "mixlaw.interop.exporters.streaming:Streaming",
    "maxtext": "mixlaw.interop.exporters.maxtext:MaxText",
    "huggingface": "mixlaw.interop.exporters.huggingface:HuggingFace",
    "trl": "mixlaw.interop.exporters.trl:Trl",
    "litgpt": "mixlaw.interop.exporters.litgpt:LitGpt",
    "tinyllama": "mixlaw.interop.exporters.tinyllama:TinyLlama",
}
"""Name -> module and class, loaded when first asked for."""

EXPORTERS: tuple[str, ...] = tuple(_HOMES)


def exporter(name: str) -> Exporter:
    """The exporter of a name. Raises: ExportError: there is none; names the nearest."""
    if name not in _HOMES:
        near = difflib.get_close_matches(name, EXPORTERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ExportError(f"no trainer {name!r}; {hint}known are {', '.join(EXPORTERS)}")
    module, _, kind = _HOMES[name].partition(":")
    return getattr(import_module(module), kind)()

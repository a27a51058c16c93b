"""Nothing here asks a hub, a cloud or a tracker for anything, and what cannot be installed is done
without; all of it before the libraries load."""

from __future__ import annotations

import importlib.util
import os
import sys
import types

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "JAX_PLATFORMS": "cpu",
}

BARE = ("streaming", "levanter", "levanter.data")
"""Packages whose own __init__ imports what cannot be had here (torchvision, which drags CUDA in;
clients of a cluster): their modules are imported without it. Nothing of theirs is replaced."""

START_THREADS = ("check_levanter", "check_maxtext")
"""These last: JAX has threads from its first use on, and what forks after that may hang."""


def pytest_configure(config):
    if "check_*.py" not in config.getini("python_files"):
        return  # another group passes by
    os.environ.update(OFFLINE)
    for name in BARE:
        if (spec := importlib.util.find_spec(name)) is not None:
            sys.modules[name] = package = types.ModuleType(name)
            package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem in START_THREADS)

"""Nothing here asks a hub, a cloud or a tracker for anything; said before their libraries load."""

from __future__ import annotations

import os

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "JAX_PLATFORMS": "cpu",
}

START_THREADS = ("check_levanter", "check_maxtext")
"""JAX has threads from its first use on, and processes that fork after that may hang."""


def pytest_configure(config):
    if "check_*.py" in config.getini("python_files"):  # else: another group passes by
        os.environ.update(OFFLINE)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem in START_THREADS)

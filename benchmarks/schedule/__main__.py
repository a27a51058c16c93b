"""See the package."""

import sys
from pathlib import Path

from benchmarks.schedule import main

main(*map(Path, sys.argv[1:2]))

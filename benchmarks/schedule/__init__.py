"""Does it pay to change the mixture during training? Static, staged and online runs, trained.

    python -m benchmarks.schedule [FOLDER]     about twenty minutes on two idle cores

Text of the Python environment, models of 55 thousand parameters. A swarm of static runs and a few
staged ones teach the laws; then, at twice the tokens, the best static mixture, the best schedules
of two and three stages, the static mixtures of their doses and runs that adapt online are trained
from several seeds each. Three questions are asked of the same runs: two where a domain that matters
is scarce, so that the static optimum is held back by the cap on epochs, and one where none is.
"""

from benchmarks.schedule.own import main

__all__ = ["main"]

"""Which mixtures are worth a run."""

from mixlaw.design.sampling import METHODS, design

__all__ = ["METHODS", "design"]

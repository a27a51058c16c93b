"""A study: one YAML file plus one folder in which everything about a decision lives."""

from mixlaw.study.config import StudyConfig, load_config
from mixlaw.study.deciding import Scale
from mixlaw.study.study import Study

__all__ = ["Scale", "Study", "StudyConfig", "load_config"]

"""Every error mixlaw raises on purpose.

    MixlawError
    ├── StudyError           a study file or folder that cannot be used as it stands
    ├── MixtureError         proportions, bounds or domain names that make no sense
    │   └── InfeasibleError  constraints that no mixture satisfies
    ├── RunTableError        a table of runs that cannot be read or trusted
    ├── CorpusError          text that cannot become training data
    │   └── TokenFileError   a truncated or foreign token file
    ├── DesignError          no design with the properties asked for
    ├── FitError             a law that the runs cannot identify
    ├── TrainError           a swarm that cannot be trained
    │   └── CheckpointError  a checkpoint that cannot be read back
    ├── ExportError          a mixture that a trainer cannot be told, or a config that is none
    ├── StorageError         the disk refused (full, read-only)
    └── MissingExtraError    an optional dependency that is not installed

A message says what failed, the value seen, the rule, and the remedy.
"""

from __future__ import annotations


class MixlawError(Exception):
    """Base of all errors that a user can act on."""


class StudyError(MixlawError):
    """A study file or folder that cannot be used as it stands."""


class MixtureError(MixlawError, ValueError):
    """Proportions, bounds or domain names that make no sense."""


class InfeasibleError(MixtureError):
    """No mixture satisfies the constraints; the message names those that conflict."""


class RunTableError(MixlawError, ValueError):
    """A table of runs that cannot be read or trusted."""


class CorpusError(MixlawError):
    """Text that cannot become training data."""


class TokenFileError(CorpusError):
    """A truncated or foreign token file."""


class DesignError(MixlawError, ValueError):
    """No design with the properties asked for."""


class FitError(MixlawError):
    """A law that the runs cannot identify."""


class TrainError(MixlawError):
    """A swarm that cannot be trained."""


class CheckpointError(TrainError):
    """A checkpoint that cannot be read back."""


class ExportError(MixlawError, ValueError):
    """A mixture that a trainer cannot be told, or a config that holds none."""


class StorageError(MixlawError):
    """The disk refused a write."""


class MissingExtraError(MixlawError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str):
        self.package, self.extra = package, extra
        super().__init__(
            f"this step needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'mixlaw[{extra}]'"
        )

    def __reduce__(self):
        # Made from two arguments but shown as one: workers send errors to their parent.
        return MissingExtraError, (self.package, self.extra)

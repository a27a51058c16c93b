"""The step of a study that continues a model: runs, laws, answer."""

from __future__ import annotations

from dataclasses import dataclass

from mixlaw.errors import FitError, StudyError
from mixlaw.study.artefacts import CONTINUAL
from mixlaw.study.continual_answer import ContinualAnswer, answer, basis_of
from mixlaw.study.continual_config import ContinualConfig
from mixlaw.study.continuing import Continuing
from mixlaw.study.folder import StudyFolder
from mixlaw.study.launching import Launching


@dataclass(frozen=True)
class ContinualSteps:
    """How much new data a model may be continued on, in one study."""

    study: StudyFolder

    @property
    def settings(self) -> ContinualConfig:
        """Raises: StudyError: the study continues no model."""
        settings = self.study.config.continual
        if settings is None:
            raise StudyError(
                f"{self.study.file} continues no model; say which domains are new, for instance "
                "continual: {new: [code]}"
            )
        return settings

    def answer(self, launching: Launching) -> ContinualAnswer:
        """Trains what is missing (where the runs are not a table), fits, answers.

        Raises: as `Study.continual`.
        """
        study, settings = self.study, self.settings
        runs = study.runs() if study.from_table else self._continuing.train(launching)
        try:
            basis = basis_of(study.config, settings, runs)
            found = study._artefacts.cached(
                CONTINUAL, basis, lambda: answer(study.config, settings, runs).to_dict()
            )
        except (StudyError, FitError) as error:
            raise StudyError(f"{study.file}: {error}") from error
        return ContinualAnswer.from_dict(found)

    def stored(self) -> ContinualAnswer | None:
        """The answer, if it is of the present runs and settings; trains nothing."""
        study = self.study
        if study.config.continual is None or not (study.folder / CONTINUAL).exists():
            return None
        runs = study.runs() if study.from_table else self._continuing.trained()
        if runs is None:
            return None
        basis = basis_of(study.config, self.settings, runs)
        stored = study._artefacts.current(CONTINUAL, basis)
        return None if stored is None else ContinualAnswer.from_dict(stored)

    @property
    def _continuing(self) -> Continuing:
        return Continuing(self.study._own("continual"), self.settings)

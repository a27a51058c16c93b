"""For a page on which any mixture is tried: the question of a study, and refits of its laws."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import StorageError
from mixlaw.files import digest
from mixlaw.interop.handover import Handover
from mixlaw.laws.base import Fitted, FittedLaw
from mixlaw.laws.bootstrap import Bootstrap, bootstrap
from mixlaw.laws.catalogue import load_fitted
from mixlaw.mixture import Mixture
from mixlaw.optimize.decide import Question
from mixlaw.schedule import Schedule
from mixlaw.study.artefacts import REFITS
from mixlaw.study.exporting import handover_of, settings_of

if TYPE_CHECKING:
    from mixlaw.study.study import Study

FORMAT_VERSION = 1
PACKED = "<f8"


def question_of(study: Study) -> Question:
    """What the study decides, at its target scale."""
    return study._deciding(study.scale).question()


def handover_for(study: Study, trainer: str) -> Handover:
    """What a trainer is told of the study's data, whatever the mixture.

    Raises: MixtureError: a setting of a domain that is none.
    """
    names = [domain.name for domain in study.domains()]
    return handover_of(
        study,
        Schedule.static(Mixture.uniform(names)),
        trainer,
        settings_of(study),
        train_tokens=study.config.target.train_tokens,
        name=study.folder.resolve().name or "mixlaw",
    )


def refits(study: Study, num_draws: int) -> Bootstrap:
    """The study's laws refitted to resampled runs; kept in its folder, since they take a while.

    Raises: FitError: as `bootstrap`. StudyError: what is kept is damaged.
    """
    fitted, seed = study.fit(), study.config.seed
    basis = {"fit": digest(fitted.to_dict()), "draws": num_draws, "seed": seed}
    basis |= {"format": FORMAT_VERSION}

    def make() -> list[dict[str, Any]]:
        draws = bootstrap(fitted, num_draws=num_draws, seed=seed).draws
        return [_packed([draw[target] for draw in draws]) for target in fitted.targets]

    packed = study._artefacts.current(REFITS, basis)
    if packed is None:
        packed = make()
        # A study that may only be read has a report too; it is made anew each time.
        with contextlib.suppress(StorageError):
            study._artefacts.write(REFITS, basis, packed)
    by_target = [_unpacked(data) for data in packed]
    return Bootstrap(
        [dict(zip(fitted.targets, laws, strict=True)) for laws in zip(*by_target, strict=True)]
    )


def _packed(laws: Sequence[Fitted]) -> dict[str, Any]:
    """R refits of one target. Those of one formula differ in their numbers alone, which are stored
    as bytes: as text they are ten times as long."""
    first = laws[0]
    if not all(isinstance(law, FittedLaw) and law.law.name == first.recipe.name for law in laws):
        return {"laws": [law.to_dict() for law in laws]}
    theta = np.stack([law.theta for law in laws if isinstance(law, FittedLaw)])
    numbers = base64.b64encode(theta.astype(PACKED).tobytes()).decode()
    return {"law": first.to_dict(), "shape": list(theta.shape), "theta": numbers}


def _unpacked(data: Mapping[str, Any]) -> list[Fitted]:
    if "laws" in data:
        return [load_fitted(law) for law in data["laws"]]
    law = FittedLaw.from_dict(data["law"])
    theta = np.frombuffer(base64.b64decode(data["theta"]), PACKED).reshape(data["shape"])
    return [replace(law, theta=row.copy()) for row in theta]

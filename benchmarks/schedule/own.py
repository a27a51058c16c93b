"""Own runs: what schedules gain at the target scale, predicted and observed."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from benchmarks.table import markdown, publish
from mixlaw.files import write_text
from mixlaw.launch.driver import train_swarm
from mixlaw.launch.local import LocalLauncher
from mixlaw.mixture import Mixture
from mixlaw.optimize import Interval
from mixlaw.runs import RunSpec, RunTable
from mixlaw.schedule import Schedule
from mixlaw.stages import FORMS, FittedStages, ScheduleDecision, optimize_schedule
from mixlaw.stages.effects import Effect
from mixlaw.stages.forms import Evidence
from mixlaw.study import Study
from mixlaw.study.schedule_verification import online_settings, online_start
from mixlaw.study.verification import objective_values, seed_noise

LEVEL = 0.9
SHAPES = {"2 stages": (0.8, 0.2), "3 stages": (0.5, 0.3, 0.2)}
STATIC, ONLINE, SAME_DOSE = "static", "online", ", same dose"

STUDY = """seed: 0
domains:
  docs: {{environment: docs, max_bytes: 3_000_000, available_tokens: 25_600}}
  python: {{environment: python, max_bytes: 3_000_000, available_tokens: 1_000_000}}
  tests: {{environment: tests, max_bytes: 3_000_000, available_tokens: 1_000_000}}
  cpp: {{environment: cpp, max_bytes: 3_000_000, available_tokens: 1_000_000}}
  data: {{environment: data, max_bytes: 3_000_000, available_tokens: 1_000_000}}
validation_only:
  cython: {{environment: cython, max_bytes: 3_000_000}}
  stubs: {{environment: stubs, max_bytes: 3_000_000}}
validation_bytes: 200_000
tokenizer: {{kind: bpe, vocab_size: 1024}}
sizes: {{55k: {{width: 48, layers: 2}}}}
design:
  mixtures: 18
  lower: {{docs: 0.01, python: 0.01, tests: 0.01, cpp: 0.01, data: 0.01}}
  upper: {{docs: 0.85, python: 0.85, tests: 0.85, cpp: 0.85, data: 0.85}}
  max_epochs: 4
  match_repetition: true
  replicated_mixtures: 2
  replicate_seeds: 2
training: {{sizes: [55k], horizon_steps: [200, 400, 600], evaluation_tokens: 32_768}}
schedule: {{stages: [[0.8, 0.2], [0.5, 0.3, 0.2]], runs: 20}}
constraints: {{max_epochs: 4}}
target: {{size: 55k, train_tokens: 614_400}}
verify: {{seeds: 6}}
objective: {objective}
"""

QUESTIONS = {
    "scarce": ("{bpb/docs: 1, bpb/cython: 1}", ("2 stages", "3 stages"), True),
    "alone": ("{bpb/docs: 1}", ("2 stages", "3 stages"), False),
    "plain": ("{bpb/cython: 1, bpb/stubs: 1}", ("2 stages",), False),
}
"""Name -> objective, the schedules that are verified, and whether online runs are."""

ABOUT = """Static laws from {swarm} runs of 18 mixtures, stage laws from {staged} staged runs,
all of 55,296 parameters and up to 307,200 tokens; verified at 614,400 tokens, {seeds} seeds each.
`docs` is scarce: four epochs of it, the most allowed, are {most:.0%} of such a run, and proxies
repeat as the target run does. Objectives are means of bits per byte. Gains: how much lower the
first is than the second; observed: by seed, which share weights and the order of each domain's
data; the {level:.0%} interval is over seeds (t).
Seed noise of the objective at the swarm's largest scale: {noise}."""


@dataclass(frozen=True, eq=False)
class Question:
    """One objective asked of the runs.

    Attributes:
        decisions: shape -> the best schedule of such stages.
        tested: whether held-out staged runs speak for the form that found them. Where none is
            better than no effect of the order, mixlaw recommends the static mixture; what the best
            of the others would have trained is trained nevertheless.
        schedules: label -> what is trained at the target scale.
    """

    name: str
    study: Study
    decisions: Mapping[str, ScheduleDecision]
    tested: bool
    online: bool

    @property
    def schedules(self) -> dict[str, Schedule]:
        found = next(iter(self.decisions.values()))
        out = {STATIC: found.static.schedule}
        for shape, decision in self.decisions.items():
            if not decision.staged.schedule.is_static:
                out[shape] = decision.staged.schedule
                out[shape + SAME_DOSE] = decision.same_dose.schedule
        return out

    def specs(self) -> list[RunSpec]:
        """What verifies it: every schedule, and the online runs, from every seed."""
        own, config = self.study._own_runs, self.study.config
        specs = own.training.verify_specs(self.schedules)
        if not self.online:
            return specs
        cap, static = config.constraints.max_epochs, self.schedules[STATIC].dose
        assert isinstance(cap, float)
        tokens = specs[0].horizon_tokens[-1]
        begin = online_start(static, self.study.domains(), tokens, cap)
        online = online_settings(next(iter(self.decisions.values())), cap)
        return specs + [
            replace(spec, label=ONLINE, mixture=begin, online=online)
            for spec in specs
            if spec.label == STATIC
        ]


def ask(folder: Path, name: str) -> Question:
    """Train what is missing of the swarm and the staged runs, fit, and decide for every shape."""
    objective, shapes, online = QUESTIONS[name]
    file = folder / f"{name}.yaml"
    write_text(file, STUDY.format(objective=objective))
    study = Study(file)
    study.train()
    study.schedule()
    fitted, scale = study.fit_stages(), study.scale
    tested = fitted.form != "dose"
    if not tested:
        found = effects(study, fitted)
        form = next(name for name in fitted.scores if name != "dose")
        fitted = replace(fitted, form=form, effect=found[form], held_out=None, folds=())
    decisions = {
        shape: optimize_schedule(
            fitted,
            study.objective,
            domains=study.domains(),
            constraints=study.config.constraints.build(),
            num_params=scale.num_params,
            train_tokens=scale.train_tokens,
            stage_shares=SHAPES[shape],
            level=LEVEL,
        )
        for shape in shapes
    }
    return Question(name, study, decisions, tested, online)


def verified(question: Question) -> RunTable:
    """The verification runs, trained where they are missing; by label."""
    own, specs = question.study._own_runs, question.specs()
    with LocalLauncher(device="cpu", workers=question.study.config.launch.workers) as launcher:
        missing = train_swarm(own.swarm, specs, launcher)
    assert not missing, missing
    return own.store.table(specs, list(question.study.config.domains))


def by_seed(runs: RunTable, study: Study, label: str) -> np.ndarray:
    """Objective (seeds,) of the runs of one label."""
    rows = runs.select(runs.label == label)
    return objective_values(rows, study.objective)[np.argsort(rows.seed)]


def over_seeds(values: np.ndarray) -> str:
    """Mean, and the interval of the mean."""
    width = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.4f} ± {width:.4f}"


def with_width(found: Interval, sign: str = "") -> str:
    width = f" ± {found.half_width:.4f}" if math.isfinite(found.half_width) else ""
    return f"{found.value:{sign}.4f}{width}"


def mixture_text(mixture: Mixture) -> str:
    return " ".join(f"{name} {share:.2f}" for name, share in mixture.items() if share >= 0.005)


def shares_table(question: Question) -> str:
    rows = []
    for label, schedule in question.schedules.items():
        stages = "; then ".join(mixture_text(stage.mixture) for stage in schedule.stages)
        epochs = schedule.epochs(question.study.scale.train_tokens or 0, question.study.domains())
        rows.append([label, stages, f"{epochs['docs']:.2f}"])
    return markdown(["", "mixture", "epochs of docs"], rows)


def objective_table(question: Question, runs: RunTable) -> str:
    """Every label: predicted and observed."""
    forecasts = {}
    for shape, decision in question.decisions.items():
        forecasts[STATIC] = decision.static.objective
        forecasts[shape] = decision.staged.objective
        forecasts[shape + SAME_DOSE] = decision.same_dose.objective
    rows = []
    for label in dict.fromkeys(runs.label.tolist()):
        seen = by_seed(runs, question.study, label)
        found = forecasts.get(label)
        said = "-" if found is None else with_width(found)
        rows.append([label, said, f"{seen.mean():.4f}", ", ".join(f"{v:.4f}" for v in seen)])
    return markdown(["run", "predicted", "observed", "by seed"], rows)


def gains_table(question: Question, runs: RunTable) -> str:
    """Staged against static and against the same dose; online against static."""
    pairs: list[tuple[str, str, str, str]] = []
    for shape, decision in question.decisions.items():
        if decision.staged.schedule.is_static:
            continue
        advice = "staged" if decision.worthwhile else "static"
        for other, gain in ((STATIC, decision.over_static), (shape + SAME_DOSE, None)):
            told = gain or decision.over_same_dose
            said = with_width(told.interval, "+")
            said += f" (p {told.probability:.2f})" if question.tested else ""
            pairs.append((shape, other, said, advice if gain else "-"))
    if question.online:
        pairs.append((ONLINE, STATIC, "-", "-"))
    rows = []
    for first, second, said, advice in pairs:
        gains = by_seed(runs, question.study, second) - by_seed(runs, question.study, first)
        seeds = ", ".join(f"{g:+.4f}" for g in gains)
        rows.append([f"{first} over {second}", said, over_seeds(gains), seeds, advice])
    columns = ["gain of", "predicted", "observed", "by seed", "mixlaw recommended"]
    return markdown(columns, rows)


def effects(study: Study, fitted: FittedStages) -> dict[str, Effect]:
    """Every form fitted to all staged runs."""
    runs = study._scheduling().runs.done()
    staged = np.array([schedule is not None for schedule in runs.schedule])
    evidence = Evidence(fitted.static, runs, staged)
    return {name: FORMS[name].fit(evidence) for name in fitted.scores}


def forms_table(fitted: FittedStages) -> str:
    """Held-out staged runs at the trained scales."""
    rows = [
        [
            ("* " if name == fitted.form else "") + name,
            f"{one.error:.2f}",
            f"{np.nanmean(one.mae):.4f}",
            f"{np.nanmean(one.bias):+.4f}",
        ]
        for name, one in fitted.scores.items()
    ]
    columns = ["stage law (* chosen)", "squared error / that of dose", "abs. error", "bias"]
    return markdown(columns, rows)


def order_table(questions: Mapping[str, tuple[Question, RunTable]]) -> str:
    """What the order did at the target scale, beside what every form says of it."""
    rows = []
    names: Sequence[str] = ()
    for name, (question, runs) in questions.items():
        study, fitted = question.study, question.study.fit_stages()
        names = list(fitted.scores)
        each, scale = effects(study, fitted), study.scale
        coefficients = study.objective.coefficients(fitted.targets)
        available = np.array([float(d.available_tokens or np.inf) for d in study.domains()])
        for shape, decision in question.decisions.items():
            if decision.staged.schedule.is_static:
                continue
            pair = [decision.staged.schedule, decision.same_dose.schedule]
            at = fitted.at(pair, scale.num_params, scale.train_tokens, available)
            forms = (replace(fitted, effect=each[form]) for form in names)
            said = [float(np.diff(form.values(at) @ coefficients)[0]) for form in forms]
            seen = by_seed(runs, study, shape + SAME_DOSE) - by_seed(runs, study, shape)
            row = [f"{name}, {shape}", over_seeds(seen), *(f"{value:+.4f}" for value in said)]
            rows.append(row)
    return markdown(["gain over the same dose", "observed", *names], rows)


def main(folder: Path | None = None) -> None:
    started = time.perf_counter()
    folder = folder or Path(tempfile.mkdtemp()) / "schedule"
    questions = {name: (found := ask(folder, name), verified(found)) for name in QUESTIONS}
    study = questions["scarce"][0].study
    staged = study._scheduling().runs.staged()
    noise = []
    for name, (question, _) in questions.items():
        found = seed_noise(study.runs().static(), question.study.objective)
        noise.append(f"{found[max(found)]:.4f} ({name})")
    docs = next(d for d in study.domains() if d.name == "docs")
    about = ABOUT.format(
        swarm=len(set(study.runs().run)),
        staged=len(set(staged.run)),
        seeds=study.config.verify.seeds,
        most=4 * (docs.available_tokens or 0) / (study.scale.train_tokens or 1),
        level=LEVEL,
        noise=", ".join(noise),
    )
    parts = [about]
    for name, (question, runs) in questions.items():
        objective = QUESTIONS[name][0]
        parts += [f"## {name}: `objective: {objective}`", shares_table(question)]
        parts += [objective_table(question, runs), gains_table(question, runs)]
        parts += [f"{shape} (by {d.form}): {d.reason}." for shape, d in question.decisions.items()]
    parts += ["## Stage laws on held-out staged runs", forms_table(study.fit_stages())]
    parts += ["## The order alone, at the target scale", order_table(questions)]
    parts.append(f"All of it took {(time.perf_counter() - started) / 60:.0f} minutes.")
    publish("schedule", "Schedules", "python -m benchmarks.schedule", "\n\n".join(parts))

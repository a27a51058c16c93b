"""From a table of small runs to a mixture, in one notebook.

`marimo edit examples/notebook.py` opens it (pip install marimo), with a slider at the end;
`python examples/notebook.py` runs the same cells as a script. It needs the extra `report`.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")


@app.cell
def _():
    from pathlib import Path

    import marimo as mo

    import mixlaw
    from mixlaw import plots
    from mixlaw.optimize import optimize

    return Path, mixlaw, mo, optimize, plots


@app.cell
def _(Path, mixlaw, mo):
    runs = mixlaw.RunTable.read(Path(__file__).parent / "tiny-env" / "runs.csv")
    runs = runs.select(runs.role != "verify")  # the runs of the target: kept for the end
    sizes = sorted({int(n) for n in runs.num_params})
    print(f"{len(runs)} rows of {len(set(runs.run))} runs, domains {', '.join(runs.domains)}")
    mo.md(f"""
    # Which mixture?

    {len(set(runs.run))} small trainings on {len(runs.domains)} domains of text, with
    {sizes} parameters. Which mixture should a model of 301,056 parameters see, if it is to be good
    on documentation, and on Cython, which no run was trained on?
    """)
    return (runs,)


@app.cell
def _(mixlaw, mo, plots, runs):
    fitted = mixlaw.fit_laws(runs, ["bpb/docs", "bpb/cython"])
    print("law", fitted.law, *fitted.warnings, sep="\n  ")
    mo.vstack(
        [
            mo.md(
                f"## The law\n\nOf all candidates `{fitted.law}` forecasts mixtures and scales "
                "best that it has not seen. On the diagonal is right."
            ),
            plots.law_comparison(fitted),
            plots.predicted_vs_observed(fitted, "bpb/docs"),
        ]
    )
    return (fitted,)


@app.cell
def _(fitted, mixlaw, mo, optimize, plots, runs):
    decision = optimize(
        fitted,
        mixlaw.Objective({"bpb/docs": 1, "bpb/cython": 1}),
        domains=[mixlaw.Domain(name) for name in runs.domains],
        constraints=mixlaw.Constraints(lower={"tests": 0.05}),
        num_params=301_056,
        train_tokens=860_160,
        support=runs.weights,
        baselines={"uniform": mixlaw.Mixture.uniform(runs.domains)},
    )
    uniform = decision.baselines["uniform"]
    print("recommended", decision.recommended)
    print(f"better than uniform by {uniform.gain:.3f}, {uniform.probability_better:.0%} sure")
    mo.vstack(
        [
            mo.md(
                f"## The decision\n\n`{decision.recommended}`: forecast {uniform.gain:.3f} bits "
                f"per byte below uniform, {uniform.probability_better:.0%} sure."
            ),
            plots.mixture(decision, runs),
            plots.flat_region(decision),
            plots.forecasts(decision),
        ]
    )
    return (decision,)


@app.cell
def _(mo):
    docs = mo.ui.slider(0, 1, 0.01, value=0.3, label="share of docs", show_value=True)
    mo.vstack([mo.md("## What if?\n\nMove it; the other domains keep their ratios."), docs])
    return (docs,)


@app.cell
def _(decision, docs, fitted, mo):
    mixture = decision.recommended.replace(docs=docs.value)
    weights = mixture.array(fitted.domains)[None]
    scale = (decision.num_params, decision.train_tokens)
    forecast = fitted.predict(weights, *scale)[0].mean()
    loss = forecast - decision.forecast.objective.value
    print(f"what if: {mixture} is forecast {loss:+.3f} from the recommended one")
    mo.md(f"`{mixture}` is forecast **{loss:+.3f}** bits per byte from the recommended mixture.")
    return


if __name__ == "__main__":
    app.run()

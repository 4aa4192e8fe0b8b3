"""A figure of the measurements."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from lft.report.figures import Drawing, Measured


def draw(measured: Measured) -> Iterator[Drawing]:
    """Example name: every experiment's primary metric after the last step, a bar per method."""
    for name, experiment in measured.profile.experiments.items():
        rows = measured.curves
        rows = rows[(rows["experiment"] == name) & (rows["metric"] == experiment.primary)]
        if rows.empty:
            continue
        last = rows[rows["step"] == rows["step"].max()]
        data = last.groupby("method", observed=True)["mean"].mean().reset_index()
        looks = [measured.style.method(name, method) for method in data["method"]]
        figure = Figure(figsize=(4, 3), layout="constrained")
        axis = figure.subplots()
        axis.bar([look.label for look in looks], data["mean"], color=[look.color for look in looks])
        axis.set_ylabel(experiment.primary)
        caption = f"Example name. {experiment.primary} of {name} after the last fine-tuning step."
        values = ", ".join(
            f"{look.label} {mean:.3g}" for look, mean in zip(looks, data["mean"], strict=True)
        )
        yield Drawing(f"example-name-{name}", "figures", caption, f"{values}.", figure, data)

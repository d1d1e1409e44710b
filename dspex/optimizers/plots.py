"""Optuna's own plots of a study."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dspex import errors

if TYPE_CHECKING:
    from dspex.optimizers.studies import Study

__all__ = ["PLOTS", "plot", "possible"]

PLOTS = {
    "history": "plot_optimization_history",
    "parallel": "plot_parallel_coordinate",
    "importances": "plot_param_importances",
    "pareto": "plot_pareto_front",
    "slice": "plot_slice",
    "timeline": "plot_timeline",
}
"""What `Study.plot` draws, and the function of `optuna.visualization` that draws it."""


def plot(study: Study, kind: str) -> Any:
    """See `Study.plot`."""
    if kind not in PLOTS:
        raise errors.InvalidValue.expecting(f"one of {errors.listed(PLOTS)}", errors.shown(kind)).at("kind")
    if study.optuna is None:
        raise errors.InvalidValue.expecting("a plot of a study of Optuna", "one of another search").at(kind)
    several = len(study.objectives) > 1
    if several != (kind == "pareto") and kind in ("pareto", "history", "parallel", "importances", "slice"):
        expected = "a plot for several objectives" if several else "a plot for one objective"
        raise errors.InvalidValue.expecting(expected, errors.shown(kind)).at("kind")
    try:
        import plotly  # noqa: F401  said here, where the extra is known
        from optuna import visualization
    except ImportError:
        raise errors.missing_extra("Plots", "optuna") from None
    draw = getattr(visualization, PLOTS[kind])
    options: dict[str, Any] = {"target_names": list(study.objectives)} if kind == "pareto" else {}
    if kind in ("history", "parallel", "importances", "slice"):
        options["target_name"] = study.objectives[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some are experimental
            return draw(study.optuna, **options)
    except (ValueError, RuntimeError) as error:
        raise errors.InvalidValue.expecting(f"a study with enough to draw ({error})", kind).at(
            "kind"
        ) from None


def possible(study: Study) -> list[tuple[str, Any]]:
    """The plots that the study has enough for."""
    found = []
    for kind in PLOTS:
        try:
            figure = plot(study, kind)
        except errors.InvalidValue:
            continue
        if figure.data:
            found.append((kind, figure))
    return found

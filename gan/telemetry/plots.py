"""A run's log as pictures, and several runs in one. The x-axis is always thousands of real images shown (kimg)."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gan.telemetry.history import FEW, Curve, History, Span, smoothed, thinned

STYLE = {
    "axes.edgecolor": "#9aa0a6", "axes.grid": True, "axes.labelcolor": "#3c4043", "axes.spines.right": False,
    "axes.spines.top": False, "axes.titlelocation": "left", "axes.titlesize": 10, "font.size": 9,
    "grid.color": "#e8eaed", "grid.linewidth": 0.7, "legend.frameon": False, "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
}  # fmt: skip
BLUE, RED, GREEN, GREY = "#1a73c7", "#d3345f", "#238b57", "#9aa0a6"
VERDICTS = {"healthy": "#43a563", "starting": "#b4b9be", "discriminator winning": "#f29a2e", "mode collapse": "#d93025",
            "diverged": "#8e3fb5"}  # fmt: skip
WIDTH = 700
"""Pixels of an x-axis, or so."""
OTHER = "#8a9096"
"""The colour of a verdict that is not known here."""
LABELS = {
    "loss/d": "loss of D", "loss/g": "loss of G", "loss/penalty": "penalty", "score/real": "real images",
    "score/fake": "generated images", "health/diversity": "pixels", "health/structure": "Laplacian bands",
    "health/duplicates": "duplicates", "health/accuracy": "accuracy", "health/sign": "sign on real images",
    "grad_norm/d": "D", "grad_norm/g": "G", "health/saturated": "at the range's ends", "health/constant": "constant",
}  # fmt: skip
COLOURS = {
    "loss/d": BLUE, "loss/g": RED, "loss/penalty": GREY, "score/real": BLUE, "score/fake": RED,
    "health/diversity": BLUE, "health/structure": GREEN, "health/duplicates": BLUE, "health/accuracy": BLUE,
    "health/sign": GREEN, "grad_norm/d": BLUE, "grad_norm/g": RED, "health/saturated": BLUE, "health/constant": GREEN,
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """What one part of a picture shows. `lines` are values to compare the curves with, and their names."""

    title: str
    names: Sequence[str]
    lines: Sequence[tuple[float, str]] = ()
    limits: tuple[float, float] | None = None
    """What the y-axis shows at least."""
    log: bool = False


HEALTH = (
    Panel("Diversity of the samples, as a share of that of the real images", ("health/diversity", "health/structure"),
          ((1, "as the real images"),), (0, 1.1)),
    Panel("Share of samples with a near-identical other", ("health/duplicates",), (), (0, 1)),
    Panel("D: share of real-fake pairs ranked right, mean sign on real images", ("health/accuracy", "health/sign"),
          ((0.5, "guessing"),), (-0.05, 1.05)),
    Panel("Gradient norms", ("grad_norm/d", "grad_norm/g"), log=True),
    Panel("Values at the range's ends, and alike in all samples (0: as in real images, 1: all)",
          ("health/saturated", "health/constant"), ((0, "as the real images"),), (-0.05, 1.05)),
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """A y-axis: linear; log where positive values span decades; symlog where others do, linear below `threshold`."""

    kind: str
    threshold: float = 1.0

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Values → positions along the axis; NaN where a logarithm has none."""
        if self.kind == "log":
            return np.log(values, out=np.full(len(values), np.nan), where=values > 0)
        return np.arcsinh(values / self.threshold) if self.kind == "symlog" else values

    def inverse(self, levels: np.ndarray) -> np.ndarray:
        """Positions along the axis → values."""
        if self.kind == "log":
            return np.exp(levels)
        return np.sinh(levels) * self.threshold if self.kind == "symlog" else levels

    def apply(self, axes: Axes) -> None:
        """Have matplotlib draw the y axis so."""
        if self.kind == "symlog":
            axes.set_yscale("symlog", linthresh=self.threshold)
        elif self.kind == "log":
            axes.set_yscale("log")


def scale_for(curves: Iterable[Curve], log: bool = False) -> Scale:
    """The scale on which all of the curves can be seen; if `log`, a log one wherever that is possible."""
    values = np.concatenate([[], *(curve.values for curve in curves)])
    values = values[np.isfinite(values)]
    sizes = np.abs(values[values != 0])
    if not len(sizes):
        return Scale("linear")
    if (log and values.max() > 0) or (values.min() > 0 and sizes.max() > 100 * np.quantile(sizes, 0.05)):
        return Scale("log")
    middle = float(np.median(sizes))
    return Scale("symlog", middle) if values.min() <= 0 and sizes.max() > 100 * middle else Scale("linear")


def losses_plot(history: History, config: dict[str, Any]) -> bytes | None:
    """PNG of the losses; None where none is logged."""
    objective = config.get("objective")
    lines = [(value, name) for value, name in equilibrium(objective if isinstance(objective, dict) else {})]
    names = [name for name in LABELS if name.startswith("loss/")]
    return one_panel(history, Panel("Losses", names, lines), "loss")


def equilibrium(objective: dict[str, Any]) -> list[tuple[float, str]]:
    """The losses where D cannot tell the images apart, D(x) = D(G(z)) = 1/2, of the losses made of cross-entropies."""
    loss = objective.get("loss", "non-saturating")
    if loss not in ("non-saturating", "saturating", "relativistic"):
        return []
    whole = 1 if loss == "relativistic" else 2
    factor = whole / 2 if objective.get("halve-d", loss != "relativistic") else whole
    player_d = {0.5: "½ log 2", 1: "log 2", 2: "2 log 2"}[factor]
    player_g = (-math.log(2), "−log 2") if loss == "saturating" else (math.log(2), "log 2")
    return list(dict.fromkeys([(factor * math.log(2), player_d), player_g]))


def scores_plot(history: History) -> bytes | None:
    """PNG of D's mean scores: probabilities, or whatever a critic gives; None where none is logged."""
    names = ("score/real", "score/fake")
    values = np.concatenate([[], *(history.curves[name].values for name in names if name in history.curves)])
    if not np.isfinite(values).any():
        return None
    probabilities = np.nanmin(values) >= 0 and np.nanmax(values) <= 1
    panel = Panel("Mean scores of D", names, ((0.5, "cannot tell"),), (0, 1)) if probabilities else Panel(
        "Mean scores of D", names)  # fmt: skip
    return one_panel(history, panel, "D(x), D(G(z))" if probabilities else "score")


def one_panel(history: History, panel: Panel, label: str) -> bytes | None:
    """One panel as a PNG; None where the run has none of its curves."""
    if not shown(history, panel):
        return None
    with drawing((9, 4.2)) as figure:
        axes = figure.subplots()
        draw_panel(axes, history, panel)
        axes.set(xlim=(0, right_end([history])), xlabel="kimg", ylabel=label)
        return as_png(figure)


def health_plot(history: History) -> bytes | None:
    """PNG of what tells whether the run is well, over the verdicts; None where nothing of it is logged."""
    panels = [panel for panel in HEALTH if shown(history, panel)]
    if not panels and not history.spans:
        return None
    heights = [*([0.22] if history.spans else []), *(1.0 for _ in panels)]
    with drawing((9, 0.9 + 1.45 * sum(heights))) as figure:
        rows = figure.subplots(len(heights), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        end = right_end([history])
        for axes, panel in zip(rows[len(heights) - len(panels) :], panels, strict=True):
            draw_panel(axes, history, panel)
            draw_verdicts(axes, history.spans, end, alpha=0.13)
        if history.spans:
            rows[0].set(yticks=[], title="Verdict")
            rows[0].tick_params(bottom=False)
            rows[0].grid(visible=False)
            draw_verdicts(rows[0], history.spans, end, alpha=1)
            seen = dict.fromkeys(span.verdict if span.verdict in VERDICTS else "other" for span in history.spans)
            patches = [Patch(color=VERDICTS.get(verdict, OTHER), label=verdict) for verdict in seen]
            figure.legend(handles=patches, loc="outside lower left", ncols=len(patches))
        rows[-1].set(xlim=(0, end), xlabel="kimg")
        return as_png(figure)


def draw_verdicts(axes: Axes, spans: Sequence[Span], end: float, alpha: float) -> None:
    """Coloured bands behind the curves; one that is too narrow to be seen is drawn a pixel wide, or so."""
    for colour in {VERDICTS.get(span.verdict, OTHER) for span in spans}:
        places = [
            (span.begin_kimg, max(span.end_kimg - span.begin_kimg, end / WIDTH))
            for span in spans
            if VERDICTS.get(span.verdict, OTHER) == colour
        ]
        axes.broken_barh(places, (0, 1), facecolors=colour, alpha=alpha, linewidth=0, zorder=0,
                         transform=axes.get_xaxis_transform())  # fmt: skip


def comparison_plot(histories: dict[str, History], names: Sequence[str]) -> bytes:
    """PNG with a panel per name and a colour per run; `histories` by the run's label."""
    count, columns = len(histories), min(2, len(names))
    rows = math.ceil(len(names) / columns)
    colours = [matplotlib.colormaps["tab10"](number) if count <= 10 else matplotlib.colormaps["turbo"](number / count)
               for number in range(count)]  # fmt: skip
    with drawing((5.2 * columns + 1.5, 2.7 * rows + 0.3 + 0.2 * count)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, name in zip(panels, names, strict=False):
            curves = [history.curves.get(name) for history in histories.values()]
            scale = scale_for(filter(None, curves))
            scale.apply(axes)
            for curve, colour in zip(curves, colours, strict=True):
                if curve is not None:
                    draw_curve(axes, curve, scale, colour)
            axes.set_title(name, parse_math=False)
            axes.set(xlim=(0, right_end(histories.values())), xlabel="kimg")
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        labels = [f" {label}" for label in histories]  # one that began with an underscore would be left out
        legend = figure.legend([Patch(color=colour) for colour in colours], labels, loc="outside lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)
        return as_png(figure)


def shown(history: History, panel: Panel) -> list[str]:
    """Which of a panel's values the log has; a penalty that is always 0 is none."""
    known = {name: history.curves[name].values for name in panel.names if name in history.curves}
    return [name for name, values in known.items()
            if np.isfinite(values).any() and (name != "loss/penalty" or np.nanmax(np.abs(values)) > 0)]  # fmt: skip


def draw_panel(axes: Axes, history: History, panel: Panel) -> None:
    """Curves, reference lines and labels of one panel."""
    curves = {name: history.curves[name] for name in shown(history, panel)}
    scale = Scale("linear") if panel.limits else scale_for(curves.values(), panel.log)
    scale.apply(axes)
    for value, name in panel.lines:
        if scale.kind != "log" or value > 0:
            axes.axhline(value, color="#5f6368", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.6)
            axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), xytext=(-2, 2), ha="right",
                          textcoords="offset points", fontsize=8, color="#5f6368")  # fmt: skip
    for name, curve in curves.items():
        draw_curve(axes, curve, scale, COLOURS[name], LABELS[name])
    if panel.limits:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, panel.limits[0]), max(high, panel.limits[1]))
    axes.set_title(panel.title)
    axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1), borderaxespad=0)


def draw_curve(axes: Axes, curve: Curve, scale: Scale, colour: Any, label: str | None = None) -> None:
    """The curve; where it has many points, faint behind its moving mean. A point that stands alone is a dot."""
    raw = thinned(curve)
    many = np.isfinite(curve.values).sum() >= FEW
    dots: Any = {} if many else {"marker": "o", "markersize": 3}
    line = partial(axes.plot, color=colour)
    line(raw.kimg, raw.values, alpha=0.28 if many else 1, linewidth=0.8 if many else 1.5, label=None if many else label,
         **dots)  # fmt: skip
    if many:
        smooth = smoothed(curve, scale.forward, scale.inverse)
        line(smooth.kimg, smooth.values, linewidth=1.8, label=label)


def right_end(histories: Iterable[History]) -> float:
    """Where the x-axis ends."""
    return 1.01 * max(history.kimg for history in histories) or 1.0


@contextlib.contextmanager
def drawing(inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure in this module's style, whatever the user's own; letters that the font lacks are no reason to warn."""
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name}
    style: Any = {**defaults, **STYLE}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.filterwarnings("ignore", message="Glyph")
        yield Figure(figsize=inches, dpi=110, layout="constrained")


def as_png(figure: Figure) -> bytes:
    """The figure's file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png")
    return file.getvalue()

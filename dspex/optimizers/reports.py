"""A study as one HTML page that needs nothing else."""

from __future__ import annotations

import html as markup
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.optimizers import plots
from dspex.optimizers.studies import counted

if TYPE_CHECKING:
    from dspex.optimizers.studies import Study, Trial

__all__ = ["NONE", "html"]

NONE = "\N{EN DASH}"
"""What stands where there is nothing."""

TITLES = {
    "history": "Each trial, and the best so far",
    "parallel": "Which values go with which score",
    "importances": "What mattered among the complete trials",
    "pareto": "The trials that nothing beats in everything",
    "slice": "Each variable by itself",
    "timeline": "When",
}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin-top: 2.5rem; }
p.lead { color: #666; margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e5e5e5; vertical-align: top; }
th { color: #666; font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.best { background: #eef7ee; }
tr.screened, tr.refused, tr.failed { color: #888; }
.tall { overflow-x: auto; }
code { background: #f4f4f4; padding: 0 .2rem; }
"""


def html(study: Study) -> str:
    """The page."""
    figures = _figures(study)
    parts = [
        f"<h1>{_text(study.name)}</h1>",
        f"<p class='lead'>{_text(_summary(study))}</p>",
        "<h2>Before and after</h2>",
        _before_and_after(study),
        *figures,
        "<h2>Trials</h2>",
        _trials(study),
        "<h2>The space</h2>",
        _space(study),
    ]
    if study.notes:
        parts += ["<h2>Notes</h2>", "<ul>", *(f"<li>{_text(note)}</li>" for note in study.notes), "</ul>"]
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{_text(study.name)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _summary(study: Study) -> str:
    where = "memory" if study.storage is None else errors.without_login(study.storage)
    calls = "LM calls not counted" if study.lm_calls is None else f"{study.lm_calls} LM calls"
    return (
        f"{study.program.__name__} on session '{study.session.id}', {time.strftime('%Y-%m-%d %H:%M')}. "
        f"{counted(study.trials)}, in {study.seconds:.1f} s, {calls}. "
        f"Kept in {where}."
    )


def _figures(study: Study) -> list[str]:
    try:
        drawn = plots.possible(study)
    except errors.MissingExtra:
        return []
    parts = []
    for index, (kind, figure) in enumerate(drawn):
        figure.update_layout(title=None, height=360, margin={"l": 50, "r": 20, "t": 20, "b": 40})
        # The library once, inside: the page has to open where there is no network.
        inside = figure.to_html(full_html=False, include_plotlyjs=index == 0)
        parts.append(f"<h2>{TITLES[kind]}</h2>\n<div class='tall'>{inside}</div>")
    return parts


def _before_and_after(study: Study) -> str:
    rows = []
    baseline, best = study.baseline, study.best
    for name, dimension in study.space.items():
        before = baseline.shown.get(name, NONE) if baseline is not None else NONE
        after = best.shown.get(name, NONE) if best is not None else NONE
        rows.append(
            [f"<code>{_text(name)}</code>", _text(before), _text(after), _text(dimension.description)]
        )
    for name in study.objectives:
        pair = [_number(getattr(one, name)) if one is not None else NONE for one in (baseline, best)]
        rows.append([_text(name), *pair, ""])
    outcome = "The winner is live." if study.receipt is not None else "Nothing was committed."
    if study.receipt is not None:
        outcome = f"Committed at revision {study.receipt.rev}: <code>study.rollback()</code> takes it back."
    return _table(["", "before", "after", ""], rows) + f"<p>{outcome}</p>"


def _trials(study: Study) -> str:
    names = list(study.space)
    rows, classes = [], []
    for one in study.trials:
        values = [_text(one.shown.get(name, "")) for name in names]
        rows.append(
            [
                str(one.number),
                one.state,
                _with_interval(one),
                str(one.items),
                _number(one.seconds),
                _number(one.lm_calls),
                *values,
                _text(one.error or ""),
            ]
        )
        best = study.best is not None and one.number == study.best.number
        classes.append("best" if best else one.state)
    columns = ["", "state", "score", "on", "s each", "LM calls each", *map(_text, names), ""]
    return f"<div class='tall'>{_table(columns, rows, classes)}</div>"


def _space(study: Study) -> str:
    rows = []
    for name, one in study.space.items():
        when = "" if one.when is None else f"while {one.when.name} is {errors.listed(one.when.values)}"
        rows.append([f"<code>{_text(name)}</code>", _text(one.over), _text(when)])
    rows += [
        [f"<code>{_text(name)}</code>", "not searched", _text(why)]
        for name, why in study.space.left_out.items()
    ]
    return _table(["variable", "", ""], rows)


def _with_interval(one: Trial) -> str:
    if one.score is None:
        return ""
    if one.interval is None:
        return _number(one.score)
    low, high = one.interval
    return f"{one.score:.3f} <small>({low:.2f} to {high:.2f})</small>"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]], classes: Iterable[str] = ()) -> str:
    named: Mapping[int, str] = dict(enumerate(classes))
    head = "".join(f"<th>{one}</th>" for one in columns)
    body = "".join(
        f"<tr class='{named.get(index, '')}'>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n"
        for index, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    shown = value if isinstance(value, str) else str(value)
    return markup.escape(shown if len(shown) <= 200 else f"{shown[:199]}…")

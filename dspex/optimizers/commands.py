"""The commands `optimize` and `trials` of `python -m dspex.optimizers`: they print, and decide nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.evaluation.datasets import dataset
from dspex.optimizers.dspy_search import DSPyOptimizer
from dspex.optimizers.joint import JointOptimizer
from dspex.optimizers.optuna_search import DEFAULT_STORAGE, OptunaOptimizer
from dspex.optimizers.reports import NONE
from dspex.optimizers.storage import KEY, need_optuna
from dspex.optimizers.studies import Trial
from dspex.session import Session

if TYPE_CHECKING:
    from dspex.spaces import SearchSpace

__all__ = ["OPTIMIZERS", "named", "optimize", "trials"]

OPTIMIZERS = ("optuna", "joint", "dspy")

SHOWN = 12
"""Trials that the table on the terminal has."""


def named(spec: str) -> Any:
    """
    The object that `package.module:name` says; modules of the working directory are found, too.

    Raises:
        InvalidValue: There is no such module, or nothing of that name in it.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise errors.InvalidValue.expecting("spelled package.module:name", errors.shown(spec)).at(
            "the object"
        )
    where = str(Path.cwd())
    if where not in sys.path:
        sys.path.insert(0, where)
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise errors.InvalidValue.expecting("in a module that there is", errors.shown(spec)).at(
            "the object"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            near = errors.did_you_mean(part, dir(found))
            raise errors.InvalidValue.expecting(f"in {module}", f"{errors.shown(part)}, which is not").at(
                f"the object{near}"
            )
        found = getattr(found, part)
    return found


def optimize(
    program: str,
    *,
    data: str,
    metric: str,
    val: str | None = None,
    trials: int = 40,
    optimizer: str = "optuna",
    session: str | None = None,
    store: str = "memory://",
    study: str | None = None,
    storage: str | None = DEFAULT_STORAGE,
    seconds: float | None = None,
    screen: int | None = 8,
    seed: int = 0,
    dry_run: bool = False,
    report: str | None = None,
) -> int:
    """Search for better values of *program* on a session, and commit the best; 0 when that was done."""
    console = _console()
    cls, score = named(program), named(metric)
    with Session(session, store=store, source="optimize") as live:
        cls.bind(live)
        space = cls.search_space(at=live.snapshot())
        train = dataset(data, program=cls)
        if dry_run:
            _show_space(console, space, len(train), trials)
            return 0
        if optimizer not in OPTIMIZERS:
            expected = f"one of {errors.listed(OPTIMIZERS)}"
            raise errors.InvalidValue.expecting(expected, errors.shown(optimizer)).at("optimizer")
        common: dict[str, Any] = {"study": study, "seconds": seconds, "seed": seed}
        with _table(console) as show:
            common["on_trial"] = show
            if optimizer == "dspy":
                made: Any = DSPyOptimizer(score, **common)
            else:
                kind = JointOptimizer if optimizer == "joint" else OptunaOptimizer
                made = kind(score, trials=trials, storage=storage, screen=screen, **common)
            found = made.compile(cls, trainset=train, valset=val, session=live)
        console.print(str(found), highlight=False, markup=False)
        for note in found.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
        if found.receipt is None:
            console.print("Nothing was better than what there is; nothing was committed.")
        else:
            console.print(
                f"Committed to session '{live.id}' at revision {found.receipt.rev}.", highlight=False
            )
        if report is not None:
            console.print(f"Report: {found.report(report)}", highlight=False, markup=False)
    return 0


def trials(study: str | None = None, *, storage: str = DEFAULT_STORAGE) -> int:
    """List the studies of a storage, or the trials of one."""
    optuna = need_optuna()
    console = _console()
    from rich.table import Table

    try:
        names = optuna.get_all_study_names(storage)
    except Exception as error:
        raise errors.StoreUnavailable(
            f"the study storage {errors.shown(storage)} cannot be read: {error}", storage=storage
        ) from None
    if study is None:
        table = Table("study", "trials", "best score")
        for name in names:
            found = optuna.load_study(study_name=name, storage=storage)
            known = found.get_trials(deepcopy=False)
            scores = [one.user_attrs.get(KEY, {}).get("score") for one in known]
            best = max((score for score in scores if score is not None), default=None)
            table.add_row(name, str(len(known)), NONE if best is None else f"{best:.3f}")
        console.print(table)
        return 0
    if study not in names:
        raise errors.InvalidValue.expecting(
            f"one of {errors.listed(names)}", f"{errors.shown(study)}{errors.did_you_mean(study, names)}"
        ).at("study")
    table = Table("", "state", "score", "on", "values")
    for one in optuna.load_study(study_name=study, storage=storage).get_trials(deepcopy=False):
        said = one.user_attrs.get(KEY, {})
        score = said.get("score")
        values = ", ".join(f"{name}={value}" for name, value in said.get("shown", one.params).items())
        table.add_row(
            str(one.number),
            said.get("state", one.state.name.lower()),
            NONE if score is None else f"{score:.3f}",
            str(said.get("items", 0)),
            values,
        )
    console.print(table)
    return 0


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        raise errors.missing_extra("Tables on the terminal", "cli") from None
    return Console()


def _show_space(console: Any, space: SearchSpace, examples: int, count: int) -> None:
    from rich.table import Table

    table = Table(
        "variable", "searched", "now", "while", title=f"{count} trials on {examples} examples would search"
    )
    for name, one in space.items():
        when = "" if one.when is None else f"{one.when.name} is {errors.listed(one.when.values)}"
        table.add_row(name, str(one.over), one.kind.show(one.initial), when)
    for name, why in space.left_out.items():
        table.add_row(name, f"not: {why}", "", "")
    console.print(table)


@contextmanager
def _table(console: Any) -> Iterator[Any]:
    """A table on the terminal that grows by a row for each trial."""
    from rich.live import Live
    from rich.table import Table

    seen: list[Trial] = []

    def drawn() -> Any:
        table = Table("", "score", "on", "s each", "state", "values")
        best = max(
            (one.score for one in seen if one.state == "complete" and one.score is not None), default=None
        )
        for one in _newest(seen):
            values = ", ".join(f"{name}={_brief(value)}" for name, value in one.shown.items())
            score = NONE if one.score is None else f"{one.score:.3f}"
            style = "bold" if one.state == "complete" and one.score == best else None
            seconds = NONE if one.seconds is None else f"{one.seconds:.2f}"
            table.add_row(str(one.number), score, str(one.items), seconds, one.state, values, style=style)
        return table

    with Live(drawn(), console=console, refresh_per_second=4) as live:

        def show(trial: Trial) -> None:
            seen.append(trial)
            live.update(drawn())

        yield show


def _newest(seen: Sequence[Trial]) -> list[Trial]:
    """The best trial and the newest ones."""
    done = [one for one in seen if one.state == "complete" and one.score is not None]
    best = [max(done, key=lambda one: one.score or 0.0)] if done else []
    newest = list(seen[-SHOWN:])
    return [*(one for one in best if one not in newest), *newest]


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""Commands of studies: optimize, trials."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspex import errors
from dspex.cli import printing, rendering
from dspex.cli.completing import session_ids
from dspex.cli.exits import INTERRUPTED
from dspex.cli.objects import named, named_program
from dspex.cli.opening import opened
from dspex.cli.options import Json, user
from dspex.cli.progress import telling
from dspex.cli.searching import SCREEN, STORAGE, TRIALS, NewSpace, Sampler, Searcher, made, working
from dspex.program import Program
from dspex.session import Session

if TYPE_CHECKING:
    from dspex.optimizers import Optimizer, Study
    from dspex.spaces import Dimension

__all__ = ["optimize", "trials"]

CANDIDATES = "candidates that are made from the examples"
"""What is searched where the declaration alone names nothing."""


def optimize(
    program: Annotated[
        str, typer.Argument(metavar="PROGRAM", help="Whose variables: package.module:Program.")
    ],
    *,
    data: Annotated[
        str, typer.Option("--data", metavar="FILE", help="Examples to score trials on: .jsonl, .json, .csv.")
    ],
    metric: Annotated[
        str, typer.Option("--metric", metavar="METRIC", help="What scores an output: package.module:metric.")
    ],
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", envvar="DSPEX_STORE", help="Where the session is."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID",
            envvar="DSPEX_SESSION",
            autocompletion=session_ids,
            help="What the winner is set in; without it, and without --store, a private session.",
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option("--val", metavar="FILE", help="Score on these; --data is for making candidates then."),
    ] = None,
    optimizer: Annotated[
        Searcher,
        typer.Option(
            "--optimizer",
            help="optuna: numbers and choices; joint: prompts and demos as well; dspy: only these.",
        ),
    ] = "optuna",
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", min=1, help=f"How many there shall be, at most; {TRIALS}."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="SECONDS", help="The time that it may take.")
    ] = None,
    lm_calls: Annotated[
        int | None, typer.Option("--lm-calls", metavar="N", min=1, help="The LM calls that it may make.")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            "--objectives",
            metavar="NAMES",
            help="What to look for, as in score:max,seconds:min; also cost, lm_calls, tokens.",
        ),
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            "--choose",
            metavar="RULE",
            help="Which of the best in several objectives: one of these, or package.module:rule.",
        ),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", metavar="N", min=1, help="Trials at the same time; 1.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", min=1, help="Examples of a trial at the same time; 1, or --workers."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Run examples in N processes, not in this one."),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", metavar="SECONDS", help="What an example may take; then it has failed."),
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option("--sampler", help="How trials are chosen; tpe, for several objectives nsga2."),
    ] = None,
    grid_points: Annotated[
        int | None,
        typer.Option("--grid-points", metavar="N", min=1, help="Values of each range, for a grid; 5."),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Values to choose from, in JSON: {NAME: [VALUE, ...]}.",
        ),
    ] = None,
    teleprompter: Annotated[
        list[str] | None,
        typer.Option(
            "--teleprompter",
            metavar="NAME",
            help='DSPy\'s optimizer to ask, as in MIPROv2 or \'GEPA={"auto": "light"}\'; BootstrapFewShot.',
        ),
    ] = None,
    screen: Annotated[
        int | None,
        typer.Option(
            "--screen",
            metavar="N",
            min=0,
            help=f"Look at N examples before the rest; {SCREEN}, 0 for always all.",
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Its name; go on with it if there is one.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help=f"Where trials are kept; {STORAGE}.")
    ] = None,
    on_new_space: Annotated[
        NewSpace | None,
        typer.Option("--on-new-space", help="Of trials from before variables were declared differently."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="The same one gives the same candidates.")
    ] = 0,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", dir_okay=False, help="Write an HTML page about it there."),
    ] = None,
    no_commit: Annotated[bool, typer.Option("--no-commit", help="Only look: set nothing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be searched, and do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search for better values of a program's variables, and set the best."""
    from dspex.evaluation import dataset
    from dspex.optimizers.studies import new_name

    if report is not None:
        _check_writable(report)
    cls, score = named_program(program), named(metric, "the metric")
    name = new_name(cls) if study is None else study
    if workers is not None and lm_calls is not None:
        raise typer.BadParameter("nobody counts them in --workers.", param_hint="--lm-calls")
    search = made(
        optimizer,
        score,
        objectives=objectives,
        choose=choose,
        candidates=candidates,
        teleprompter=teleprompter or (),
        trials=trials,
        seconds=seconds,
        lm_calls=lm_calls,
        parallel=parallel,
        num_threads=threads or workers,
        deadline=deadline,
        sampler=sampler,
        grid_points=grid_points,
        screen=screen,
        study=name,
        storage=storage,
        on_new_space=on_new_space,
        seed=seed,
        commit=not no_commit,
    )
    with _live(cls, store, session) as live:
        if dry_run:
            count = len(dataset(data if val is None else val, program=cls))
            return _say_plan(cls, live, search, count, as_json=as_json)
        try:
            with working(search, cls, workers), telling(quiet=as_json) as search.on_trial:
                found = search.compile(cls, trainset=data, valset=val, session=live)
        except KeyboardInterrupt:
            printing.note(f"stopped, and the session is as it was. --study {name} goes on with it.")
            raise typer.Exit(INTERRUPTED) from None
        written = None if report is None else str(found.report(report))
        return _say_found(found, session, written, looked=no_commit, as_json=as_json)


def trials(
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="Its trials; without it, all studies.")
    ] = None,
    *,
    storage: Annotated[
        str, typer.Option("--storage", metavar="URL", help="Where trials are kept.")
    ] = STORAGE,
    as_json: Json = False,
) -> None:
    """List the studies that were kept, or the trials of one."""
    from dspex.optimizers.stored import stored_studies, stored_study
    from dspex.optimizers.studies import scored

    if study is not None:
        there = stored_study(storage, study).trials
        if as_json:
            return printing.answer([rendering.trial_json(one) for one in there])
        return printing.table(rendering.TRIAL_HEADS, map(rendering.trial_cells, there))
    found = stored_studies(storage)
    if as_json:
        return printing.answer(
            [
                {
                    "study": one.name,
                    "program": one.program,
                    "trials": scored(one.trials),
                    "best": None if one.best is None else rendering.trial_json(one.best),
                }
                for one in found
            ]
        )
    return printing.table(
        ["study", "program", "trials", "best score"],
        (
            [
                one.name,
                one.program or "",
                str(scored(one.trials)),
                "" if one.best is None else f"{one.best.score:.3f}",
            ]
            for one in found
        ),
    )


def _check_writable(report: Path) -> None:
    """Refuse before anything is searched what could not be written after it."""
    if not report.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {report.parent}.", param_hint="--report")
    where = report if report.exists() else report.parent
    if not os.access(where, os.W_OK):
        raise typer.BadParameter(f"{where} cannot be written.", param_hint="--report")


@contextmanager
def _live(program: type[Program], store: str | None, session: str | None) -> Iterator[Session]:
    """The session that is searched, or a private one where none is named."""
    if store is None and session is None:
        with Session(source=user()) as private:
            yield private
        return
    if store is None or session is None:
        raise typer.BadParameter(
            "--store and --session go together; without both a private session is searched."
        )
    with opened(store, session, user()) as live:
        if live.variables and not set(program.variables) & set(live.variables):
            raise errors.UnknownVariable(
                f"session '{session}' is of another program: it has no variable of {program.__name__}, but "
                f"{errors.listed(live.variables)}.",
                session=session,
            )
        yield live


def _say_plan(
    program: type[Program], live: Session, search: Optimizer, examples: int, *, as_json: bool
) -> None:
    """What would be searched, without declaring anything in the session."""
    with live.fork() as fork:
        program.bind(fork)
        space = program.search_space(search.candidates, at=fork.snapshot())
        names = search.tuned(program, fork, space)
        now = {name: (fork.variables[name].kind, fork.get(name)) for name in names}
    left_out = {name: why for name, why in space.left_out.items() if name not in names}
    left_out |= {name: "not by this optimizer" for name in space if name not in names}
    searched = {name: space.get(name) for name in names}
    if as_json:
        return printing.answer(
            {
                "program": space.program,
                "examples": examples,
                "searched": [
                    {
                        "name": name,
                        "value": rendering.as_json(*now[name]),
                        "over": CANDIDATES if one is None else str(one.over),
                        "when": None if one is None or one.when is None else one.when.name,
                    }
                    for name, one in searched.items()
                ],
                "left_out": left_out,
            }
        )
    rows = [
        [name, rendering.short(*now[name]), CANDIDATES if one is None else str(one.over), _condition(one)]
        for name, one in searched.items()
    ]
    rows += [[name, "", f"not: {why}", ""] for name, why in left_out.items()]
    printing.table(["variable", "value", "searched", "while"], rows)
    return printing.note(f"a trial would be scored on {examples} examples")


def _condition(one: Dimension | None) -> str:
    return "" if one is None or one.when is None else f"{one.when.name} is {errors.listed(one.when.values)}"


def _say_found(found: Study, session: str | None, report: str | None, *, looked: bool, as_json: bool) -> None:
    from dspex.optimizers.studies import scored

    receipt = found.receipt
    changes = [
        (found.session.variables[change.name].kind, change) for change in (receipt.changes if receipt else ())
    ]
    if as_json:
        return printing.answer(
            {
                "study": found.name,
                "session": session,
                "revision": None if receipt is None else str(receipt.revision),
                "changes": [rendering.change_json(kind, change) for kind, change in changes],
                "baseline": None if found.baseline is None else rendering.trial_json(found.baseline),
                "best": None if found.best is None else rendering.trial_json(found.best),
                "trials": scored(found.trials),
                "seconds": found.seconds,
                "lm_calls": found.lm_calls,
                "notes": list(found.notes),
                "report": report,
            }
        )
    printing.lines(str(found).splitlines())
    printing.lines(rendering.step_line(kind, change) for kind, change in changes)
    for note in found.notes:
        printing.note(note)
    if looked:
        printing.note("nothing is set")
    elif receipt is None:
        printing.note("nothing was better than what there is; nothing is set")
    elif session is None:
        printing.note("that was a private session, and it is gone: set the values where they are wanted")
    if report is not None:
        printing.note(f"the report is in {report}")
    return None

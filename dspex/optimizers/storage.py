"""Where Optuna keeps the trials of a study, and whether they are of the same search."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspex import errors, wire
from dspex.optimizers.studies import MINIMIZED, Trial
from dspex.spaces import exports

if TYPE_CHECKING:
    from dspex.optimizers.base import Search
    from dspex.spaces import SearchSpace

__all__ = [
    "KEY",
    "NewSpace",
    "kept_candidates",
    "need_optuna",
    "open_study",
    "quietly",
    "trial_of",
    "unusable",
]

KEY = "dspex"
"""The user attribute, of a study and of each trial, that has what Optuna does not know."""

CANDIDATES = "dspex.candidates"
"""The user attribute of a study with the candidates that were made for it: trials have only their labels."""

NewSpace = str
"""What to do with trials of a space that was declared differently: `refuse` them, or `map` what can be."""


def need_optuna() -> Any:
    """The optuna package; raises `MissingExtra` without it."""
    try:
        import optuna
    except ImportError:
        raise errors.missing_extra("Searches with Optuna", "optuna") from None
    return optuna


@contextmanager
def quietly() -> Iterator[None]:
    """Optuna writes a line on the terminal for each trial; not in the block."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def open_study(
    search: Search,
    storage: Any,
    *,
    sampler: Any,
    pruner: Any,
    objectives: Sequence[str],
    on_new_space: NewSpace,
) -> tuple[Any, list[str]]:
    """
    The study of that name, made if it is not there, and notes on what was kept of older trials.

    Raises:
        VariableConflict: It is of another space, other examples or other objectives.
        StoreUnavailable: The storage cannot be used.
    """
    optuna = need_optuna()
    directions = ["minimize" if name in MINIMIZED else "maximize" for name in objectives]
    options = {"sampler": sampler, "pruner": pruner, "directions": directions, "load_if_exists": True}
    about = _about(search, objectives)
    with _usable(storage):
        return _opened(search, optuna, {"storage": storage, **options}, about, on_new_space)


def kept_candidates(search: Search, storage: Any) -> dict[str, list[Any]] | None:
    """
    The candidates by name that the study of that name was begun with; None if it is not in *storage*.

    Raises:
        StoreUnavailable: The storage cannot be used.
    """
    with _usable(storage), quietly():
        try:
            study = need_optuna().load_study(study_name=search.name, storage=storage)
        except KeyError:
            return None
        kept = study.user_attrs.get(CANDIDATES)
    if kept is None:
        return None
    kinds = {name: one.kind for name, one in search.program.variables.items()}
    return {
        name: [wire.unpack_value(kinds[name], base64.b64decode(one)) for one in values]
        for name, values in kept.items()
        if name in kinds
    }


def _packed(search: Search) -> dict[str, list[str]]:
    return {
        name: [
            base64.b64encode(wire.pack_value(search.space[name].kind, one)).decode()
            for one in search.space[name].points(1)
        ]
        for name in search.candidates
        if name in search.space
    }


@contextmanager
def _usable(storage: Any) -> Iterator[None]:
    """What Optuna and SQLAlchemy say of *storage* in the block as one error of ours."""
    optuna = need_optuna()
    try:
        yield
    except errors.DspexError:
        raise
    except (ValueError, OSError, optuna.exceptions.OptunaError) as error:
        raise unusable(storage, error) from error
    except Exception as error:
        if type(error).__module__.startswith("sqlalchemy"):
            raise unusable(storage, error) from error
        raise


def _opened(
    search: Search, optuna: Any, options: dict[str, Any], about: dict[str, Any], on_new_space: NewSpace
) -> tuple[Any, list[str]]:
    study = optuna.create_study(study_name=search.name, **options)
    known = study.user_attrs.get(KEY)
    if known is None and study.trials:
        raise _foreign(search.name)
    if known is None:
        study.set_user_attr(CANDIDATES, _packed(search))
        study.set_user_attr(KEY, about)
        return study, []
    different = [part for part in ("examples", "objectives", "program") if known.get(part) != about[part]]
    if different:
        raise _mismatch(search.name, different, known, about)
    if known["fingerprint"] == about["fingerprint"]:
        return study, []
    if on_new_space != "map":
        raise _other_space(search, known["space"], about["space"])
    newer = optuna.create_study(study_name=f"{search.name}@{about['fingerprint']}", **options)
    if newer.user_attrs.get(KEY) is not None:
        return newer, []
    notes = _moved(search.space, study, newer, known)
    newer.set_user_attr(CANDIDATES, _packed(search))
    newer.set_user_attr(KEY, about)
    return newer, notes


def unusable(storage: Any, error: Exception) -> errors.StoreUnavailable:
    """*storage* cannot be opened, read or written."""
    where = errors.without_login(storage)
    why = str(error).strip().partition("\n")[0] or type(error).__name__
    return errors.StoreUnavailable(
        f"the study storage {errors.shown(where, 80)} cannot be used: {why}",
        storage=where,
    )


def _about(search: Search, objectives: Sequence[str]) -> dict[str, Any]:
    space = search.space
    rows = [one.toDict() if hasattr(one, "toDict") else dict(one) for one in search.valset]
    digest = hashlib.sha256(json.dumps(rows, default=str, sort_keys=True).encode()).hexdigest()[:12]
    return {
        "program": space.program,
        "space": space.describe(),
        "fingerprint": space.fingerprint,
        "start": space.encode(space.initial),
        "examples": [len(rows), digest],
        "objectives": list(objectives),
    }


def _moved(space: SearchSpace, old: Any, new: Any, known: Mapping[str, Any]) -> list[str]:
    """Add the trials of *old* to *new* as far as they have a point there; what was not kept, and why."""
    optuna = need_optuna()
    kept, notes = 0, []
    for trial in old.get_trials(deepcopy=False):
        attributes = trial.user_attrs.get(KEY)
        if trial.state != optuna.trial.TrialState.COMPLETE or attributes is None:
            continue
        mapped = space.map(attributes["shown"], known["start"])
        if mapped.point is None:
            notes.append(f"trial {trial.number} of the older space is not kept: {mapped.notes[0]}")
            continue
        params = exports.params_of(space.dimensions, mapped.point)
        everywhere = space.to_optuna()
        attributes = {**attributes, "shown": space.encode(mapped.point), "baseline": False}
        new.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: everywhere[name] for name in params},
                values=trial.values,
                user_attrs={KEY: attributes},
            )
        )
        kept += 1
    return [f"{kept} trials of the older space are kept", *notes]


def trial_of(frozen: Any, space: SearchSpace | None = None) -> Trial:
    """An `optuna.trial.FrozenTrial` of *space* as one of ours; without a space it has no point."""
    said = frozen.user_attrs.get(KEY, {})
    if space is None:
        point, shown = {}, said.get("shown", frozen.params)
    else:
        point = space.active(exports.point_of(space.dimensions, frozen.params))
        shown = space.encode(point)
    state = said.get("state", "running" if not frozen.state.is_finished() else "failed")
    interval = said.get("interval")
    return Trial(
        frozen.number,
        point,
        shown,
        state,
        interval=None if interval is None else tuple(interval),
        **{name: said.get(name) for name in ("score", "seconds", "cost", "lm_calls", "tokens", "error")},
        items=said.get("items", 0),
        failures=said.get("failures", 0),
        baseline=said.get("baseline", False),
    )


def _foreign(name: str) -> errors.VariableConflict:
    return errors.VariableConflict(
        f"the storage has a study '{name}' that dspex has not made. Give this one another name: study=…",
        study=name,
    )


def _mismatch(
    name: str, different: Sequence[str], known: Mapping[str, Any], about: Mapping[str, Any]
) -> errors.VariableConflict:
    part = different[0]
    return errors.VariableConflict(
        f"study '{name}' was made with other {part}: {known.get(part)}, now {about[part]}. Their trials "
        "cannot be compared; give this one another name: study=…",
        study=name,
        different=tuple(different),
    )


def _other_space(search: Search, known: Any, now: Any) -> errors.VariableConflict:
    names = sorted(name for name in {*known, *now} if known.get(name) != now.get(name))
    return errors.VariableConflict(
        f"study '{search.name}' was made for another space: {errors.listed(names)} "
        f"{'is' if len(names) == 1 else 'are'} declared differently now. Give this one another name, or keep "
        "what can be kept of the old trials with on_new_space='map'.",
        study=search.name,
        names=tuple(names),
    )

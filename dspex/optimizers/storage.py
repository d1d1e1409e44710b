"""Where Optuna keeps the trials of a study, and whether they are of the same search."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from dspex import errors
from dspex.optimizers.made import keep_candidates
from dspex.optimizers.studies import MINIMIZED, Trial
from dspex.spaces import exports

if TYPE_CHECKING:
    from dspex.optimizers.base import Search
    from dspex.spaces import SearchSpace

__all__ = [
    "KEY",
    "NewSpace",
    "key_of",
    "made_trial",
    "need_optuna",
    "of_space",
    "open_study",
    "quietly",
    "said_of",
    "trial_of",
    "trials_of",
    "unusable",
]

KEY = "dspex"
"""The user attribute, of a study and of each trial, that has what Optuna does not know."""

SAID = tuple(
    field.name for field in attrs.fields(Trial) if field.name not in ("number", "point", "shown", "state")
)
"""What Optuna does not know of a trial; with its state and its point in scalars."""

NewSpace: TypeAlias = Literal["refuse", "map"]
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


def open_study(search: Search, storage: Any, objectives: Sequence[str], **more: Any) -> Any:
    """
    The study of the name of *search*, made if it is not there; it has no space yet.

    Args:
        search: Whose program and examples it is of.
        storage: Where it is.
        objectives: What it looks for.
        more: What else must be the same in all runs of the study.

    Raises:
        VariableConflict: It is of another program, other examples or other objectives.
        StoreUnavailable: The storage cannot be used.
    """
    about = _about(search, objectives) | more
    directions = ["minimize" if name in MINIMIZED else "maximize" for name in objectives]
    with _usable(storage):
        study = _created(search.name, storage, directions)
        known = study.user_attrs.get(KEY)
        if known is None and study.trials:
            raise _foreign(search.name)
        if known is None:
            study.set_user_attr(KEY, about)
            return study
    different = [part for part in about if known.get(part) != about[part]]
    if different:
        raise _mismatch(search.name, different, known, about)
    return study


def of_space(search: Search, study: Any, storage: Any, on_new_space: NewSpace) -> tuple[Any, list[str]]:
    """
    *study* if its trials are of the space of *search*, else the one that they were moved to; and notes.

    Raises:
        VariableConflict: They are of another space, and shall not be moved.
        StoreUnavailable: The storage cannot be used.
    """
    with _usable(storage):
        space = search.space
        about = study.user_attrs[KEY]
        now = about | {
            "space": space.describe(),
            "fingerprint": space.fingerprint,
            "start": space.encode(space.initial),
        }
        if "space" not in about:
            _settle(search, study, now)
            return study, []
        if about["fingerprint"] == now["fingerprint"]:
            return study, []
        if on_new_space != "map":
            raise _other_space(search, about["space"], now["space"])
        newer = _created(f"{search.name}@{now['fingerprint']}", storage, study.directions)
        if newer.user_attrs.get(KEY) is not None:
            return newer, []
        notes = _moved(space, study, newer, about)
        _settle(search, newer, now)
        return newer, notes


def _settle(search: Search, study: Any, about: dict[str, Any]) -> None:
    keep_candidates(search, study)
    study.set_user_attr(KEY, about)  # last: with it the study is whole


def _created(name: str, storage: Any, directions: Sequence[Any]) -> Any:
    return need_optuna().create_study(
        study_name=name, storage=storage, directions=directions, load_if_exists=True
    )


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


def unusable(storage: Any, error: Exception) -> errors.StoreUnavailable:
    """*storage* cannot be opened, read or written."""
    where = errors.without_login(storage)
    why = str(error).strip().partition("\n")[0] or type(error).__name__
    return errors.StoreUnavailable(
        f"the study storage {errors.shown(where, 80)} cannot be used: {why}",
        storage=where,
    )


def _about(search: Search, objectives: Sequence[str]) -> dict[str, Any]:
    rows = [one.toDict() if hasattr(one, "toDict") else dict(one) for one in search.valset]
    digest = hashlib.sha256(json.dumps(rows, default=str, sort_keys=True).encode()).hexdigest()[:12]
    return {
        "program": search.space.program,
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
        said = {**attributes, "shown": space.encode(mapped.point), "baseline": False}
        new.add_trial(made_trial(space, mapped.point, trial.values, said))
        kept += 1
    return [f"{kept} trials of the older space are kept", *notes]


def made_trial(
    space: SearchSpace, point: Mapping[str, Any], values: Sequence[float], said: Mapping[str, Any]
) -> Any:
    """A complete `optuna.trial.FrozenTrial` of *point*, to be added to a study that was not asked for it."""
    params = exports.params_of(space.dimensions, point)
    everywhere = space.to_optuna()
    return need_optuna().trial.create_trial(
        params=params,
        distributions={name: everywhere[name] for name in params},
        values=list(values),
        user_attrs={KEY: dict(said)},
    )


def said_of(done: Trial) -> dict[str, Any]:
    """What Optuna does not keep of a trial."""
    return {name: getattr(done, name) for name in SAID} | {"state": done.state, "shown": dict(done.shown)}


def key_of(shown: Mapping[str, Any]) -> str:
    """By which two trials of one point are known."""
    return repr(sorted((name, type(value).__name__, value) for name, value in shown.items()))


def trials_of(study: Any, space: SearchSpace | None = None) -> list[Trial]:
    """
    The trials of a study of Optuna that were begun; see `trial_of`.

    A point that was proposed again, and answered from what was known, is one trial; of two looks at it the
    one counts that saw more examples.
    """
    waiting = need_optuna().trial.TrialState.WAITING
    found: dict[Any, Trial] = {}
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state == waiting:
            continue
        trial = trial_of(frozen, space)
        key = _point_of(trial)
        if key not in found or trial.items > found[key].items:
            found.pop(key, None)  # so that they stay in the order of their numbers
            found[key] = trial
    return list(found.values())


def _point_of(trial: Trial) -> Any:
    """What no two trials of a list have; of those that did not end each is its own."""
    if trial.state in ("complete", "screened"):
        return key_of(trial.shown)
    return ("refused", key_of(trial.shown)) if trial.state == "refused" else trial.number


def trial_of(frozen: Any, space: SearchSpace | None = None) -> Trial:
    """An `optuna.trial.FrozenTrial` of *space* as one of ours; without a space it has no point."""
    said = frozen.user_attrs.get(KEY, {})
    if space is None:
        point, shown = {}, said.get("shown", frozen.params)
    else:
        point = space.active(exports.point_of(space.dimensions, frozen.params))
        shown = space.encode(point)
    state = said.get("state", "failed" if frozen.state.is_finished() else "running")
    kept = {name: said[name] for name in SAID if name in said}
    if kept.get("interval") is not None:
        kept["interval"] = tuple(kept["interval"])
    return Trial(frozen.number, point, shown, state, **kept)


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
        f"{'is' if len(names) == 1 else 'are'} declared differently now, or set to what it does not know. "
        "Give this one another name, or keep what can be kept of the old trials with on_new_space='map'.",
        study=search.name,
        names=tuple(names),
    )

"""What a storage has: its studies and their trials, for whoever looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from dspex import errors
from dspex.optimizers.storage import KEY, need_optuna, quietly, trials_of, unusable
from dspex.optimizers.studies import Trial

__all__ = ["Stored", "stored_studies", "stored_study"]


@attrs.frozen
class Stored:
    """A study in a storage."""

    name: str
    program: str | None
    """None where something else than dspex has made the study."""
    trials: tuple[Trial, ...]
    """Without their points: values are in scalars only."""

    @property
    def best(self) -> Trial | None:
        """The complete trial with the highest score."""
        done = [one for one in self.trials if one.state == "complete" and one.score is not None]
        return max(done, key=lambda one: one.score or 0.0, default=None)


def stored_studies(storage: str) -> list[Stored]:
    """
    The studies that are in *storage*.

    Raises:
        StoreUnavailable: It is not there, or cannot be read.
    """
    with _reading(storage) as optuna:
        return [_read(optuna, storage, name) for name in optuna.get_all_study_names(storage)]


def stored_study(storage: str, name: str) -> Stored:
    """
    The study *name* in *storage*.

    Raises:
        InvalidValue: There is none.
        StoreUnavailable: The storage is not there, or cannot be read.
    """
    with _reading(storage) as optuna:
        names = optuna.get_all_study_names(storage)
        if name in names:
            return _read(optuna, storage, name)
    near = errors.did_you_mean(name, names)
    raise errors.InvalidValue(f"the storage has no study {errors.shown(name)}.{near}", study=name)


@contextmanager
def _reading(storage: str) -> Iterator[Any]:
    """The optuna package, while *storage* is read in the block."""
    optuna = need_optuna()
    try:
        _refuse_missing(storage)
        with quietly():
            yield optuna
    except errors.DspexError:
        raise
    except Exception as error:
        raise unusable(storage, error) from error


def _refuse_missing(storage: str) -> None:
    """Looking makes no file."""
    from sqlalchemy.engine import make_url

    url = make_url(storage)
    path = url.database
    if url.get_backend_name() == "sqlite" and path and path != ":memory:" and not Path(path).exists():
        raise errors.StoreUnavailable(f"{path} is not there: no study was kept in it.", path=path)


def _read(optuna: Any, storage: str, name: str) -> Stored:
    study = optuna.load_study(study_name=name, storage=storage)
    return Stored(name, study.user_attrs.get(KEY, {}).get("program"), tuple(trials_of(study)))

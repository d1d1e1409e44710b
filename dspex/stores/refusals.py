"""What every ledger says when it refuses, in the same words whatever the store is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dspex import errors
from dspex.records import Revision

__all__ = [
    "deleted",
    "exists",
    "forgotten",
    "moved",
    "moving",
    "nested",
    "not_held",
    "refused",
    "too_many_names",
    "too_many_tags",
    "too_many_writes",
    "unknown_tag",
    "version_conflict",
]


def deleted(session: str) -> errors.SessionClosed:
    """The session is gone for everyone."""
    return errors.SessionClosed(
        f"session '{session}' was deleted. Open it again to start anew.", session=session
    )


def moved(session: str, url: str, session_id: str) -> errors.SessionMoved:
    """The session is elsewhere now, for everyone."""
    name = "" if session_id == session else f" as '{session_id}'"
    return errors.SessionMoved(
        f"session '{session}' has moved to {url}{name}. Open it there.",
        session=session,
        url=url,
        session_id=session_id,
    )


def moving(session: str) -> errors.SessionMoving:
    """The session takes no commits for a moment."""
    return errors.SessionMoving(
        f"session '{session}' is on its way to another store. Try again in a moment.", session=session
    )


def nested(session: str, name: str, limit: int) -> errors.LimitExceeded:
    """Claims on *name* are in each other too deep."""
    return errors.LimitExceeded(
        f"claims on '{name}' in session '{session}' are nested {limit} deep: is this a loop?",
        name=name,
        session=session,
        limit=limit,
    )


def not_held(session: str) -> errors.StoreUnavailable:
    """Somebody may have committed while the session was to be on hold."""
    return errors.StoreUnavailable(
        f"session '{session}' was not held back all the time: it stays where it is. Try again.",
        session=session,
    )


def exists(session: str, at: Revision) -> errors.SessionExists:
    """The id is taken."""
    return errors.SessionExists(
        f"the store has a session '{session}' already, at {at}. Take another id, or delete that one.",
        session=session,
    )


def refused(session: str, name: str, error: Exception, known: Collection[str]) -> Exception:
    """What the kind of *name* said, or that there is no such kind, at its place."""
    if isinstance(error, errors.InvalidValue):
        return error.at(name, session)
    if isinstance(error, errors.LimitExceeded):
        sentence = f"{name}: {error.message} In session '{session}'."
        return errors.LimitExceeded(sentence, name=name, **error.facts)
    if isinstance(name, str) and name in known:
        return error  # a fault of the kind itself
    return errors.unknown_variable(f"session '{session}'", name, known)


def version_conflict(session: str, name: str, version: int, expected: Any) -> errors.DspexError:
    """*name* is at *version*; or what was *expected* is no version."""
    if type(expected) is not int:
        expecting = f"a version of '{name}', an integer"
        return errors.InvalidValue.expecting(expecting, errors.shown(expected)).at("expect", session)
    return errors.VersionConflict(
        f"'{name}' in session '{session}' is at version {version}, not {expected}: someone set it "
        "since. Read it again and retry.",
        name=name,
        session=session,
        version=version,
        expected=expected,
    )


def too_many_writes(session: str, count: int, limit: int) -> errors.LimitExceeded:
    """One commit has *count* writes."""
    return errors.LimitExceeded(
        f"a commit may hold {limit} writes (got {count}) in session '{session}'. Split it.", limit=limit
    )


def too_many_names(session: str, count: int, limit: int) -> errors.LimitExceeded:
    """The session would have *count* variables."""
    return errors.LimitExceeded(
        f"a session may have {limit} variables (got {count}) in session '{session}'.", limit=limit
    )


def too_many_tags(session: str, limit: int) -> errors.LimitExceeded:
    """The session would have one label more than *limit*."""
    return errors.LimitExceeded(
        f"a session may have {limit} tags in session '{session}'. Move one: tag it again.", limit=limit
    )


def forgotten(session: str, since: int, oldest: int) -> errors.UnknownRevision:
    """The history begins after *oldest* only."""
    return errors.UnknownRevision(
        f"the changes of session '{session}' since revision {since} are not all there any more; the oldest "
        f"point to go on from is {oldest}. Start from a snapshot.",
        session=session,
        since=since,
        oldest=oldest,
    )


def unknown_tag(session: str, tag: Any, known: Collection[str]) -> errors.UnknownRevision:
    """There is no label *tag*."""
    return errors.UnknownRevision(
        f"session '{session}' has no tag {errors.shown(tag, 80)}.{errors.did_you_mean(tag, known)}",
        session=session,
        tag=tag,
    )

"""
Who may do what: tokens, what they grant, and what each call needs.

A token is at least 128 random bits. A server knows only SHA-256 digests, and compares a token with all of
them in constant time. A caller that lacks a grant gets the same answer whether the session is there or not.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from dspex import errors
from dspex.rpc.limits import Bucket

__all__ = [
    "ANYONE",
    "EVERYONE",
    "VERBS",
    "Caller",
    "Gate",
    "Grant",
    "Token",
    "new_token",
    "read_tokens",
    "token_line",
]

VERBS = ("read", "set", "watch", "admin")
"""What can be granted: read values and history, set and declare, be told of changes, delete sessions."""

ANYONE = "token"
"""The rule of a call that every caller with a valid token may make."""

SHORTEST = 32
"""Characters of a token. Those that `new_token` makes have 43."""

_PATTERN = re.compile(r"[A-Za-z0-9_*?-]{1,64}", re.ASCII)


def _verbs(verbs: Iterable[str]) -> frozenset[str]:
    found = frozenset(verbs)
    if not found or not found <= set(VERBS):
        raise errors.InvalidDeclaration(
            f"a grant gives some of {errors.listed(VERBS)} (got {errors.listed(sorted(found))})."
        )
    return found


def _pattern(_self: object, _field: object, pattern: str) -> None:
    if _PATTERN.fullmatch(pattern) is None:
        raise errors.InvalidDeclaration(
            f"a grant is for a session id with * and ? for parts of it (got {errors.shown(pattern, 80)})."
        )


@attrs.frozen
class Grant:
    """The right to do *verbs* in the sessions whose id matches *pattern*."""

    pattern: str = attrs.field(validator=_pattern)
    verbs: frozenset[str] = attrs.field(converter=_verbs)

    @classmethod
    def parse(cls, text: str) -> Grant:
        """The grant that `pattern=verb,verb` is."""
        pattern, _, verbs = text.partition("=")
        return cls(pattern, verbs.split(","))

    def __str__(self) -> str:
        return f"{self.pattern}={','.join(verb for verb in VERBS if verb in self.verbs)}"


@attrs.frozen
class Token:
    """A token as the server knows it."""

    digest: bytes = attrs.field(repr=False)
    grants: tuple[Grant, ...]
    expires: float | None = None
    """Seconds since 1970-01-01 UTC."""

    @classmethod
    def of(cls, secret: str, *grants: str, expires: float | None = None) -> Token:
        """
        What the server is to know of *secret*, which grants `"pattern=verb,verb"`.

        Raises:
            InvalidDeclaration: *secret* is short enough to be guessed.
        """
        if len(secret) < SHORTEST:
            raise errors.InvalidDeclaration(
                f"a token must have at least {SHORTEST} characters (got {len(secret)}). "
                "Let new_token() make one."
            )
        return cls(sha256(secret.encode()).digest(), tuple(map(Grant.parse, grants)), expires)


def new_token(*grants: str, expires: float | None = None) -> tuple[str, Token]:
    """A new secret for the client, and what the server is to know of it."""
    secret = secrets.token_urlsafe(32)
    return secret, Token.of(secret, *grants, expires=expires)


def token_line(token: Token) -> str:
    """*token* as a line of a server's token file."""
    when = "-"
    if token.expires is not None:
        when = datetime.fromtimestamp(token.expires).astimezone().isoformat(timespec="seconds")
    return " ".join([token.digest.hex(), when, *map(str, token.grants)])


def read_tokens(path: str | Path) -> tuple[Token, ...]:
    """
    The tokens of a server's token file: lines of `digest expires grant …`; what begins with # is not read.

    Raises:
        InvalidDeclaration: A line is not that, or others than its owner may write the file.
    """
    file = Path(path)
    if file.stat().st_mode & 0o022:
        raise errors.InvalidDeclaration(f"{file} may be written by others than its owner: chmod 600 {file}")
    tokens = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            made = _read_token(line)
        except ValueError:
            made = None
        if made is None or len(made.digest) != sha256().digest_size or not made.grants:
            raise errors.InvalidDeclaration(
                f"{file}, line {number}: a token is the SHA-256 of its secret in hexadecimal, when it ends "
                "or -, and what it grants."
            )
        tokens.append(made)
    return tuple(tokens)


def _read_token(line: str) -> Token:
    digest, when, *grants = line.split()
    expires = None if when == "-" else datetime.fromisoformat(when).timestamp()
    return Token(bytes.fromhex(digest), tuple(map(Grant.parse, grants)), expires)


class Caller:
    """Who made a call, as far as the server cares: what it may do."""

    __slots__ = ("_known", "_token")

    def __init__(self, token: Token | None) -> None:
        self._token = token
        self._known: dict[tuple[str, str], bool] = {}

    @property
    def over(self) -> bool:
        """Whether its token has ended."""
        token = self._token
        return token is not None and token.expires is not None and time.time() >= token.expires

    def may(self, verb: str, session: str) -> bool:
        """Whether this caller may do *verb* in *session*, which need not be there."""
        if self._token is None or verb == ANYONE:
            return True
        try:
            return self._known[verb, session]
        except KeyError:
            granted = any(
                verb in grant.verbs and fnmatchcase(session, grant.pattern) for grant in self._token.grants
            )
            if len(self._known) < 1_000:
                self._known[verb, session] = granted
            return granted

    def must(self, verb: str, session: str) -> None:
        """
        Let the caller pass that may do *verb* in *session*.

        Raises:
            PermissionDenied: It may not, or its token has ended.
        """
        token = self._token
        if token is None:
            return
        if self.over:
            raise _unauthenticated()
        if not self.may(verb, session):
            raise errors.PermissionDenied(
                f"this token does not grant '{verb}' in session {errors.shown(session, 80)}.",
                verb=verb,
                session=session,
            )


EVERYONE = Caller(None)
"""The caller on a socket that only its owner can open."""


def _unauthenticated() -> errors.PermissionDenied:
    return errors.PermissionDenied(
        "this server wants a token, and this is none that it knows. Give one by ?token-file=.",
        authenticated=False,
    )


class Gate:
    """Tells callers by their tokens."""

    def __init__(self, tokens: Sequence[Token], failures: float) -> None:
        self._tokens = tuple(tokens)
        self._rate = failures
        self._failed: dict[str, Bucket] = {}

    def caller(self, metadata: Iterable[tuple[str, Any]] | None, peer: str) -> Caller:
        """
        Who calls with *metadata* from *peer*.

        Raises:
            PermissionDenied: The token is missing or unknown.
            LimitExceeded: *peer* has tried too many.
        """
        if not self._tokens:
            return EVERYONE
        host = peer.rpartition(":")[0]
        bucket = self._failed.get(host)
        given = b""
        for key, value in metadata or ():
            if key == "authorization" and isinstance(value, str) and value.startswith("Bearer "):
                given = value.removeprefix("Bearer ").encode()
        digest = sha256(given).digest()
        found: Token | None = None
        for token in self._tokens:  # all of them, so that the time says nothing
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            if bucket is None:
                if len(self._failed) > 1_000:
                    self._failed.clear()
                bucket = self._failed[host] = Bucket(self._rate)
            bucket.take("refused tokens")
            raise _unauthenticated()
        return Caller(found)

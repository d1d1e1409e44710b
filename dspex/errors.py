"""
Every refusal of dspex, and every sentence that says one.

A sentence says where, what was expected, what came and what to do. The same facts are attributes of the
exception, and `code` is the same word in process and over the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = [
    "Claimed",
    "DeadlineExceeded",
    "DspexError",
    "DurabilityUnknown",
    "ForkUnsafe",
    "InvalidAssignment",
    "InvalidCall",
    "InvalidDeclaration",
    "InvalidName",
    "InvalidValue",
    "LimitExceeded",
    "MetricFailed",
    "MissingExtra",
    "NoLanguageModel",
    "PermissionDenied",
    "PoolClosed",
    "PoolSaturated",
    "ProgramError",
    "RuleBroken",
    "SessionClosed",
    "SessionExists",
    "SessionMoved",
    "SessionMoving",
    "StaleRead",
    "StoreUnavailable",
    "UnknownModule",
    "UnknownProgram",
    "UnknownRevision",
    "UnknownSession",
    "UnknownTool",
    "UnknownVariable",
    "VariableConflict",
    "VersionConflict",
    "WorkerLost",
    "WouldBlock",
]


class DspexError(Exception):
    """
    The parent of every error that dspex raises on purpose.

    The facts given by keyword become attributes, so that a program need not read the sentence.
    """

    code: ClassVar[str] = "ERROR"
    """One word per kind of refusal, the same in every process and language."""

    by_code: ClassVar[dict[str, type[DspexError]]] = {}
    """Every error class by its code; how an error that crossed a wire becomes itself again."""

    def __init_subclass__(cls, *, code: str, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.code = code
        DspexError.by_code[code] = cls

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.__dict__.update(facts)

    def __str__(self) -> str:
        return self.message


class InvalidAssignment(DspexError, AttributeError, code="INVALID_ASSIGNMENT"):
    """
    An attribute of a program cannot be set: the program is pinned, or the name is a slip of a variable's.

    An `AttributeError`, as what Python's own frozen classes raise.
    """

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.name = facts.get("name", "")  # AttributeError has a slot for it, which hides the fact


class InvalidCall(DspexError, TypeError, code="INVALID_CALL"):
    """A program, a module or a verb is called with what it does not take, or without what it needs."""


class InvalidDeclaration(DspexError, ValueError, code="INVALID_DECLARATION"):
    """A kind, a variable or a program is declared in a way that can never work."""


class InvalidName(DspexError, ValueError, code="INVALID_NAME"):
    """A name is not `[A-Za-z_][A-Za-z0-9_.-]{0,127}`."""


class InvalidValue(DspexError, ValueError, code="INVALID_VALUE"):
    """
    A value is not one that its kind takes.

    A kind says what it expected; whoever knows the name and the session adds them with `at()`.
    """

    expected: str
    given: str

    @classmethod
    def expecting(cls, expected: str, given: str) -> Self:
        """Say that a value must be *expected*, and was *given*, already printable."""
        return cls(f"value must be {expected} (got {given}).", expected=expected, given=given)

    def at(self, name: str, session: str | None = None) -> Self:
        """Return the same refusal with the place where it happened."""
        where = f" in session '{session}'" if session is not None else ""
        return type(self)(
            f"{name} must be {self.expected} (got {self.given}){where}.",
            expected=self.expected,
            given=self.given,
            name=name,
            session=session,
        )


class UnknownVariable(DspexError, LookupError, code="UNKNOWN_VARIABLE"):
    """No variable of that name is declared here."""


class UnknownSession(DspexError, LookupError, code="UNKNOWN_SESSION"):
    """The store has no session of that id."""


class UnknownModule(DspexError, LookupError, code="UNKNOWN_MODULE"):
    """No module is registered under that name."""


class UnknownRevision(DspexError, LookupError, code="UNKNOWN_REVISION"):
    """A version, revision or tag that the bounded history does not have, or no longer has."""


class RuleBroken(DspexError, ValueError, code="RULE_BROKEN"):
    """Values that a rule of their program does not let come together."""


class MetricFailed(DspexError, code="METRIC_FAILED"):
    """A metric raised, or gave something that is no finite score."""


class VariableConflict(DspexError, code="VARIABLE_CONFLICT"):
    """Two declarations of one name in one session do not agree."""


class VersionConflict(DspexError, code="VERSION_CONFLICT"):
    """Somebody set the variable since the version that was expected."""


class Claimed(DspexError, code="CLAIMED"):
    """Another owner holds a claim on the variable."""


class SessionClosed(DspexError, code="SESSION_CLOSED"):
    """The handle was closed; open the session again."""


class SessionMoved(SessionClosed, code="SESSION_MOVED"):
    """The session is in another store now: `url` says in which, `session_id` under which id."""


class SessionExists(DspexError, code="SESSION_EXISTS"):
    """The store has a session of that id already."""


class StoreUnavailable(DspexError, code="STORE_UNAVAILABLE"):
    """The store cannot be reached, opened or written right now."""


class DurabilityUnknown(StoreUnavailable, code="DURABILITY_UNKNOWN"):
    """The commit was made, and is not known to be as durable as its store promises."""


class SessionMoving(StoreUnavailable, code="SESSION_MOVING"):
    """The session is on its way to another store and takes no commits for a moment: try again."""


class StaleRead(DspexError, code="STALE_READ"):
    """The value at hand is older than the reader allows."""


class PermissionDenied(DspexError, code="PERMISSION_DENIED"):
    """The caller's grants do not cover what it asked for."""


class LimitExceeded(DspexError, code="LIMIT_EXCEEDED"):
    """A size, a count or a rate is over its bound."""


class DeadlineExceeded(DspexError, TimeoutError, code="DEADLINE_EXCEEDED"):
    """The time given for a call was used up."""


class WorkerLost(DspexError, code="WORKER_LOST"):
    """The worker process that ran a call has ended."""


class ForkUnsafe(DspexError, code="FORK_UNSAFE"):
    """Workers cannot be forked: not on this system, or not after what was imported."""


class PoolSaturated(DspexError, code="POOL_SATURATED"):
    """The pool's queue is full."""


class PoolClosed(DspexError, code="POOL_CLOSED"):
    """The pool takes no more calls, or was closed before this one had ended."""


class UnknownProgram(DspexError, LookupError, code="UNKNOWN_PROGRAM"):
    """The pool was not told of a program of that name, or it cannot be imported."""


class UnknownTool(DspexError, LookupError, code="UNKNOWN_TOOL"):
    """No tool is offered under that name."""


class ProgramError(DspexError, code="PROGRAM_ERROR"):
    """
    What a program raised in another process, where its own class cannot be had here.

    `type` names that class, `traceback` is the text of the traceback there.
    """


class WouldBlock(DspexError, RuntimeError, code="WOULD_BLOCK"):
    """A call would stop the event loop of its thread until it has an answer; it can be awaited."""


class NoLanguageModel(DspexError, LookupError, code="NO_LANGUAGE_MODEL"):
    """A module needs a language model and none was found."""


class MissingExtra(DspexError, ImportError, code="MISSING_EXTRA"):
    """An optional package is not installed."""


# Sentences that more than one room says, or that need more than one line.


def shown(value: object, limit: int = 200) -> str:
    """*value* for a sentence: its repr, control characters escaped, at most *limit* characters."""
    if type(value) in (str, bytes):  # a part of a secret is no secret any more
        value = value[: limit + 1]  # type: ignore[index]  # what is cut off need not be rendered
    if isinstance(value, int) and value.bit_length() > 512:
        return f"an integer of {value.bit_length()} bits"  # a repr of 4,300 digits is a ValueError
    try:
        text = repr(value)
    except Exception:  # of the user's making
        return f"an unprintable {type(value).__name__}"
    if not text.isprintable():
        text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def without_login(url: object) -> str:
    """*url* for people: what may be a user and a password is left out."""
    text = str(url)
    scheme, mark, rest = text.partition("://")
    if mark and not rest.startswith("/"):  # else it is a path, where an @ is only that
        rest = rest.rpartition("@")[2]
    return f"{scheme}{mark}{rest}"


def listed(names: Iterable[object]) -> str:
    """*names* as a reader expects them in a sentence: `'a', 'b', 'c'`."""
    return ", ".join(shown(name, 60) for name in names)


def did_you_mean(name: object, known: Collection[str]) -> str:
    """A question with the nearest known name, or nothing."""
    if not isinstance(name, str) or len(name) > 200:
        return ""
    from difflib import get_close_matches  # only a refusal needs it

    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def slip_of(name: str, known: Iterable[str]) -> str | None:
    """
    The name in *known* of which *name* is a slip of the keyboard; None for a name of its own.

    A slip is one letter left out, one too many or two swapped, inside one long word (`temprature`), or other
    underscores and capitals (`maxtokens`). Whatever could be meant is none: `temperatures`, `model_`, `max_k`
    beside `max_p`, `content` beside `context`. Of the 7,685 classes of Python's library and of 129
    packages 20 have attributes that are slips of each other to this rule, 265 to a `difflib` ratio of 0.9.
    """
    for one in known:
        if name[:1] != one[:1] or name[-1:] != one[-1:]:
            continue
        if _flat(name) == _flat(one):
            return one
        words, others = name.split("_"), one.split("_")
        if len(words) == len(others):
            pairs = [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]]
            if len(pairs) == 1 and _one_letter_off(*pairs[0]):
                return one
    return None


def _flat(name: str) -> str:
    return name.replace("_", "").lower()


def _one_letter_off(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    if len(long) < 5 or word[0] != other[0] or word[-1] != other[-1] or not (word + other).isalpha():
        return False
    if long.removesuffix("s").startswith(short.removesuffix("s")):
        return False  # another form of the word: votes and voters
    inner = range(1, len(long) - 1)
    if len(long) > len(short):
        return any(long[:at] + long[at + 1 :] == short for at in inner)
    return any(word[:at] + word[at + 1] + word[at] + word[at + 2 :] == other for at in inner)


def unknown_variable(owner: str, name: object, known: Collection[str]) -> UnknownVariable:
    """*owner* is a program's name or `session 'id'`."""
    if known:
        why = f".{did_you_mean(name, known)}"
    else:
        why = ": nothing is declared there yet. Bind a program to it, or register() a variable."
    return UnknownVariable(f"{owner} has no variable {shown(name, 80)}{why}", owner=owner, name=name)


def rule_broken(rule: str, said: str, session: str) -> RuleBroken:
    """*rule* said why not."""
    return RuleBroken(f"{said} (rule {rule}, session '{session}')", rule=rule, said=said, session=session)


def missing_extra(what: str, extra: str) -> MissingExtra:
    """*what* is the subject of the sentence, in the plural: `Redis stores`."""
    return MissingExtra(f"{what} need the extra '{extra}': {installing(extra)}.", extra=extra)


def installing(extra: str) -> str:
    """How to get *extra*, also where dspex itself was not installed from an index."""
    return f"pip install 'dspex[{extra}]', or '.[{extra}]' in a clone"

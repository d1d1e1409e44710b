"""
The text of one field, read off an answer while it still comes. Plain functions, no dspy.

A reader gives nothing that could turn out to be something else: what it holds back and never gives is the end
of the text, which is known when the whole answer is.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod

__all__ = ["Between", "JsonText", "Reader", "chat", "line", "xml"]


class Reader(ABC):
    """Reads one answer."""

    @abstractmethod
    def read(self, text: str) -> str:
        """What *text*, which came after all the others, adds to the field."""


class Between(Reader):
    """
    The text between two marks, without white space at both ends.

    Args:
        start: Matches what is before the text.
        ends: What may be after it, as it is.
    """

    def __init__(self, start: str, *ends: str) -> None:
        self._start = re.compile(start)
        self._ends = ends
        self._unread = ""
        self._within = self._begun = self._over = False

    def read(self, text: str) -> str:
        if self._over:
            return ""
        self._unread += text
        if not self._within:
            begun = self._start.search(self._unread)
            if begun is None:
                return ""
            self._within, self._unread = True, self._unread[begun.end() :]
        given = self._unread
        for end in self._ends:
            given, found, _ = given.partition(end)
            self._over = self._over or bool(found)
        if not self._begun:
            given = given.lstrip()
        if not self._over:
            given = given[: len(given) - self._held(given)]
        given = given.rstrip()
        self._begun = self._begun or bool(given)
        if given:
            self._unread = self._unread[self._unread.index(given) + len(given) :]
        return given

    def _held(self, text: str) -> int:
        """How many characters at the end of *text* may be the beginning of the end."""
        sizes = (size for end in self._ends for size in range(1, len(end)) if text.endswith(end[:size]))
        return max(sizes, default=0)


class JsonText(Reader):
    """A string in an object of JSON, as it is when it is read."""

    _string = re.compile(r'(?:[^"\\]|\\[^u]|\\u[0-9a-fA-F]{4})*')
    _half = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}$")
    """The first half of a pair that is one character."""

    def __init__(self, name: str) -> None:
        self._start = re.compile(rf'(?<!\\)"{re.escape(name)}"\s*:\s*"')
        self._unread = ""
        self._within = self._over = False

    def read(self, text: str) -> str:
        if self._over:
            return ""
        self._unread += text
        if not self._within:
            found = self._start.search(self._unread)
            if found is None:
                return ""
            self._within, self._unread = True, self._unread[found.end() :]
        whole = self._string.match(self._unread)
        assert whole is not None  # it may be empty
        raw = whole.group()
        self._over = len(raw) < len(self._unread) and self._unread[len(raw)] == '"'
        if not self._over:
            raw = self._half.sub("", raw)
        self._unread = self._unread[len(raw) :]
        try:
            read: str = json.loads(f'"{raw}"', strict=False)
        except ValueError:  # no JSON that anybody could read
            self._over = True
            return ""
        return read


def chat(name: str) -> Reader:
    """The field of that name, under its header."""
    return Between(rf"(?m)^[ \t]*\[\[ ## {re.escape(name)} ## \]\]", "[[ ##")


def xml(name: str) -> Reader:
    """The field of that name, in its element, as far as it is written as it is."""
    return Between(rf"(?m)^[ \t]*<{re.escape(name)}>", "<", "&")


def line(label: str | None) -> Reader:
    """The line after that label; without one, the first line."""
    return Between(r"\A" if label is None else rf"(?m)^{re.escape(label)}: ", "\n")

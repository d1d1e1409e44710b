"""What all URLs of stores have in common."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from dspex import errors

__all__ = ["split"]


def split(url: str) -> SplitResult:
    """
    The parts of *url*.

    Raises:
        InvalidValue: It is none.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        shown = errors.shown(errors.without_login(url), 80)
        raise errors.InvalidValue.expecting(f"a URL ({error})", shown).at("the URL of a store") from None

"""What of a URL may be told, written down and logged: never a password, token or signature."""

from __future__ import annotations

import re

_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*://)"  # https://
    r"(?:[^\s/?#'\"]*@"  # user:password@, of which the last @ is the end
    r"|[^\s/?#'\"]*:(?!\d+['\"]|\d*(?:[\s/?#]|$))\S*@)?"  # so, too, where odd signs are in it
    r"([^\s?#'\"<>]*)"  # host and path
    r"(?:[?#][^\s'\"<>]*)?"
)


def without_secrets(text: str) -> str:
    """Every URL in the text without user, password, query and fragment."""
    return _URL.sub(r"\1\2", text)

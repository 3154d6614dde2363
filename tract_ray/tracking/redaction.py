"""No credentials leave the process: addresses and error lines are stripped of them before they are shown or stored."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"
_USER = re.compile(r"(?<![\w+.-])([a-zA-Z][\w+.-]*://)(\S+)@")
_QUERY = re.compile(
    r"([?&;][^=&;\s]*(?:pass|pwd|token|secret|credential|odbc_connect)[^=&;\s]*=)[^&;\s'\"]+", re.IGNORECASE
)


def redact(text: str, uri: str = "") -> str:
    """`text` without the credentials of any address in it, and without those of `uri` wherever they stand alone.

    User and password are hidden together, as a token may be either; so are a query's passwords and tokens. A
    password may hold an @ or a slash that was not escaped: all up to the last @ of the address goes.
    """
    if uri and not uri.startswith("sqlite:"):
        text = text.replace(uri, redact(uri))
        for secret in sorted(_secrets(uri), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(_hide_user, text))


def error_line(error: BaseException, uri: str) -> str:
    """What `error` says, in one line, without the credentials of `uri`."""
    said = redact(str(error), uri).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _hide_user(match: re.Match[str]) -> str:
    # A database file is a path, and a path may hold an @.
    return match[0] if match[1].lower() == "sqlite://" else f"{match[1]}{HIDDEN}@"


def _secrets(uri: str) -> set[str]:
    """Passwords and tokens of `uri`, escaped as they are in it and not."""
    found = {match[0].removeprefix(match[1]) for match in _QUERY.finditer(uri)}
    if match := re.match(r"[^:]+://(.+)@", uri):
        user, colon, password = match[1].partition(":")
        found.add(password if colon else user)
    # One or two letters are in every line, and hide nothing.
    return {secret for known in found for secret in (known, unquote(known)) if len(secret) > 2}

"""Shows URLs without what is secret in them."""

import re

_LOGIN = re.compile(r"://.*@", re.DOTALL)
"""Greedy up to the last @: a password may hold @, / and : when it was not quoted."""
_QUERY = re.compile(r"([?&][^=&]*(?:pass|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def hide(url: str) -> str:
    """The URL with user, password and secret query values as `***`."""
    return _QUERY.sub(r"\1***", _LOGIN.sub("://***@", url))

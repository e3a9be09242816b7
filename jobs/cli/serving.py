"""Makes the server that `textmill api` and `textmill up` start: the API, and the dashboard beside it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.api.server import ApiServer
    from jobs.queue import Queue
    from jobs.settings import Settings
    from jobs.store import Store


def server(settings: "Settings", store: "Store", queue: "Queue") -> "ApiServer":
    """Bound to its address already. Raises ApiNotInstalled, InvalidSettings."""
    from jobs.api.server import NOT_INSTALLED, ApiNotInstalled, ApiServer

    try:
        from jobs.web import install
    except ImportError as error:
        raise ApiNotInstalled(f"{NOT_INSTALLED} ({error})") from error
    return ApiServer(settings, store, queue, install)

"""Opens what a command works on (settings, store, client) and closes it again."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.models import Registry
    from jobs.settings import Settings
    from jobs.store import Store


@contextmanager
def store(settings: "Settings | None" = None) -> "Iterator[Store]":
    """The database of the settings in force."""
    from jobs.settings import load_settings
    from jobs.store import Store

    chosen = settings or load_settings()
    chosen.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    opened = Store.open(chosen.effective_database_url, lease_s=chosen.lease_s)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def client(database: "Store | None" = None) -> "Iterator[Client]":
    """A client of the deployment that the settings in force name, on this store of it or on one of its own."""
    from jobs.client import Client
    from jobs.settings import load_settings

    chosen = load_settings()
    with nullcontext(database) if database is not None else store(chosen) as opened:
        registry(opened, chosen)
        with Client(chosen, store=opened) as made:
            yield made


def registry(opened: "Store", settings: "Settings") -> "Registry":
    """The model registry, with the file of the `models` setting synced into it."""
    from jobs.models import Registry

    found = Registry(opened)
    if settings.models is not None:
        found.sync(settings.models)
    return found

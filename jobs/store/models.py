"""The registry's entries: one language model's specification a row."""

from sqlalchemy import Connection, delete, select

from jobs.models import ModelSpec
from jobs.store.dialect import Database
from jobs.store.tables import models


class Models:
    """What models there are, by name."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def list(self) -> list[ModelSpec]:
        """All entries, by name."""
        wanted = select(models.c.spec).order_by(models.c.name)
        found = self._db.read(lambda connection: connection.scalars(wanted).all())
        return [ModelSpec.model_validate(spec) for spec in found]

    def get(self, name: str) -> ModelSpec | None:
        """The entry of this name, if there is one."""
        wanted = select(models.c.spec).where(models.c.name == name)
        spec = self._db.read(lambda connection: connection.scalar(wanted))
        return None if spec is None else ModelSpec.model_validate(spec)

    def put(self, spec: ModelSpec) -> None:
        """Add the entry, or replace the one of its name."""
        # Without what is as ever: a worker of the version before, which knows fewer fields, still reads it.
        values = {"spec": spec.model_dump(mode="json", exclude_defaults=True)}
        row = self._db.insert(models).values(name=spec.name, **values)

        def work(connection: Connection) -> None:
            connection.execute(row.on_conflict_do_update(index_elements=[models.c.name], set_=values))

        self._db.write(work)

    def remove(self, name: str) -> bool:
        """Whether there was such an entry; it is gone now."""
        gone = delete(models).where(models.c.name == name)
        return self._db.write(lambda connection: connection.execute(gone).rowcount) == 1

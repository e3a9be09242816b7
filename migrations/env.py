"""Runs the migrations in the transaction `jobs.store.migrate` opened, or on the database of `alembic -x url=...`."""

from alembic import context
from sqlalchemy import Connection

from jobs.store.dialect import Database
from jobs.store.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    database = Database(context.get_x_argument(as_dictionary=True)["url"])
    database.write(run)
    database.close()

"""alembic's environment: the connection is handed in by `orchestrator.ledger.schema`."""

from alembic import context

from orchestrator.ledger.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False
)
context.run_migrations()

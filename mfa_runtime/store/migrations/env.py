"""Alembic's entry: run the migrations on the connection that :mod:`mfa_runtime.store.versions` hands over."""

from alembic import context

from mfa_runtime.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by making a new one
)
with context.begin_transaction():
    context.run_migrations()

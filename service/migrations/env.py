"""What Alembic runs: the steps that are missing, on the connection that `service.migrate` has opened and locked."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()

"""How the tables came to be, one step after the other; run by ``maintenance.upgrade``.

The next step, drafted from what the tables in ``schema`` lack in a database at the last one::

    from alembic import command
    from monitor.storage.maintenance import migrating

    with migrating("sqlite:///draft.db") as config:
        command.upgrade(config, "head")
        command.revision(config, "what it does", rev_id="0004", autogenerate=True)

Then read it, and set ``schema.REVISION``.
"""

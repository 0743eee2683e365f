"""What the database knows of how far it has been written, so that nothing is stored twice.

A name is that of a file of a spool, and its position how many of its groups are stored; or that of
a writer, and its position the mark of its last transaction. Both are written in the transaction
that they tell of: whoever does not know whether it was committed asks for them.
"""

from collections.abc import Collection, Mapping
from functools import cache

from sqlalchemy import Connection, Executable, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from monitor.storage.schema import SpoolPositionRow


def read_positions(connection: Connection) -> dict[str, int]:
    """All positions by name."""
    rows = connection.execute(select(SpoolPositionRow.name, SpoolPositionRow.position))
    return {row.name: row.position for row in rows}


def move_positions(
    connection: Connection, before: Mapping[str, int], after: Mapping[str, int]
) -> None:
    """Set positions, inside the transaction that they tell of.

    Args:
        connection: in a transaction.
        before: where they are expected to be; one that is not there was never set.
        after: where they go.

    Raises:
        OSError: one is elsewhere: a transaction that seemed lost was committed after all, or
            another process writes the same.
    """
    move = _move(connection.dialect.name)
    for name, position in after.items():
        moved = {"of": name, "to": position, "expected": before.get(name, -1)}
        done = connection.execute(move, moved, execution_options={"preserve_rowcount": True})
        if done.rowcount != 1:
            raise OSError(f"position of {name}: expected {before.get(name)}, and it has moved")


@cache
def _move(dialect: str) -> Executable:
    # Made once: every transaction of the writer has one, and making it takes longer than doing it.
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(SpoolPositionRow).values(name=bindparam("of"), position=bindparam("to"))
    return statement.on_conflict_do_update(
        index_elements=["name"],
        set_={"position": statement.excluded.position},
        where=SpoolPositionRow.position == bindparam("expected"),
    )


def forget_positions(connection: Connection, names: Collection[str]) -> None:
    """Delete the positions of files that are gone, in a transaction of its own."""
    with connection.begin():
        connection.execute(delete(SpoolPositionRow).where(SpoolPositionRow.name.in_(names)))

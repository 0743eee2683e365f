"""Reads the CSV tables that come with data sets."""

import csv
from collections.abc import Iterable
from pathlib import Path

from training.errors import TrainingError


def read_table(path: Path, *needed: str) -> list[dict[str, str]]:
    """Rows of a CSV file whose first line names its columns.

    Args:
        path: the file.
        needed: columns it must have.

    Raises:
        TrainingError: it cannot be read, lacks a column, or a row has another number of cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise TrainingError(f"{path}: column {twice[0]!r} stands there twice")
            for name in needed:
                if name not in names:
                    raise TrainingError(
                        f"{path}: no column {name!r}; it has {', '.join(names)[:200] or 'none'}"
                    )
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise TrainingError(
                        f"{path}: line {reader.line_num}: expected {len(names)} cells"
                    )
                rows.append(row)
            return rows
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a CSV table ({error})") from None


def by_key(path: Path, rows: Iterable[dict[str, str]], key: str) -> dict[str, dict[str, str]]:
    """Rows of the table ``path`` by one of its columns.

    Raises:
        TrainingError: two rows have the same key, so that one of them would be lost.
    """
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row[key] in found:
            raise TrainingError(f"{path}: {key} {row[key]!r} stands there twice")
        found[row[key]] = row
    return found


def read_rows(path: Path, cells: int) -> list[list[str]]:
    """Rows of a CSV file without a header, each of ``cells`` cells.

    Raises:
        TrainingError: it cannot be read, or a row has another number of cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: not a CSV table ({error})") from None
    for number, row in enumerate(rows, 1):
        if len(row) != cells:
            raise TrainingError(f"{path}: row {number}: expected {cells} cells, found {len(row)}")
    return rows

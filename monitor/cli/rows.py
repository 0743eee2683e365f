"""What a command prints with ``--json``."""

import json
import sys
from typing import Any


def print_row(row: dict[str, Any]) -> None:
    """One object, on a line of its own."""
    sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")

"""The error that ends a command with one line."""


class TrainingError(Exception):
    """Something a person can mend: a wrong path, an empty class, a loss that is not a number."""

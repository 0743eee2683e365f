"""Readers of the file formats in which ECG recordings are kept, one module a format."""

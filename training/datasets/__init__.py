"""Data sets: readers of their own layouts, one prepared form, and how records are split."""

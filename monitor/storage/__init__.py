"""What is kept of every heart: samples, windows, gaps and alarms, in SQLite or Postgres."""

"""The truth of a run, in one SQLite file: one writer, many readers."""

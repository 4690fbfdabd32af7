"""The report: a page of a run's pictures beside their originals, that opens from disk."""

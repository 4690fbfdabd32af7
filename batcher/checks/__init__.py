"""Before the night and after it: is everything there that a run needs, and is everything it made still whole."""

"""The remote API: what can be asked of it, what it may answer, and how bytes get there."""

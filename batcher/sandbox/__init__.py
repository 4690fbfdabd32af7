"""A stand-in for the remote API, for rehearsal and tests: shares the client's schema files, and none of its code."""

"""From an output's URL to a whole, checked file under its final name, then its sidecar."""

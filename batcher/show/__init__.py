"""What people and programs are told: listeners on the events, and readers of the ledger."""

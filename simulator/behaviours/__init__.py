"""What the simulated model says: pure functions from a request to a reply, decided by the messages alone."""

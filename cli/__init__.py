"""The `nightshift` command: a client of the HTTP API, and the way to start each process of the platform."""

"""Memory of agents: the conversations of sessions, and what is remembered of users."""

"""Memory of agents: the conversation of a session."""

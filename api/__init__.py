"""The thin HTTP face of the platform: it validates, writes to the job store, and reads from it. It runs no agent."""

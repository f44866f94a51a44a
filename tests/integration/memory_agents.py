"""The agent of `test_memory`, whose jobs have the memory of their user."""

from agent_core import Agent, UserMemory

friend = Agent(name="friend", instructions="Be a friend.", model="claude-haiku-4-5", memory=UserMemory(k=4))

"""The simulated model: a small server that speaks Anthropic's Messages API, without a network, a key or a bill.

It says in every answer that it is simulated. It can be scripted and told to be slow, to fail or to cut a stream
(`simulator.script`), so that agents can be tested against the faults of a real provider.
"""

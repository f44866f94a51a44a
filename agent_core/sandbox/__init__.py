"""A sandbox for code that a model wrote: see docs/security.md for what it holds back, and how."""

from agent_core.sandbox.box import Ran, Sandbox, SandboxUnavailableError

__all__ = ["Ran", "Sandbox", "SandboxUnavailableError"]

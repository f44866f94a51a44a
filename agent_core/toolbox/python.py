"""A tool that runs the model's own Python, in a sandbox or not at all."""

from __future__ import annotations

from typing import Annotated

from agent_core.context import tool_context
from agent_core.errors import ToolError
from agent_core.sandbox import Ran, Sandbox, SandboxUnavailableError
from agent_core.sandbox.box import GRACE_SECONDS
from agent_core.tools import Tool, tool

STOPPED = {
    "time": "stopped: it ran for longer than {seconds:g} seconds",
    "memory": "stopped: it held more than {memory_mb} MiB of memory",
}


def run_python(sandbox: Sandbox | None = None) -> Tool:
    """A tool that runs Python code in a sandbox: bubblewrap, without network, secrets or a way out.

    The job's workspace is at /input, read-only; regular files that the code leaves in its working directory become
    artifacts of the job. Where there is no sandbox, each call answers `sandbox_unavailable`; `nightshift doctor` says
    why. The tool's effect is `read`: it changes nothing but artifacts, which another run writes again.
    """
    box = sandbox or Sandbox()

    async def run_python(code: Annotated[str, "the program, whole: nothing is kept from one run to the next"]) -> str:
        """Run a Python program and get what it prints. It has the standard library, no network and no shell. The
        files of the workspace are in /input, read-only. Files that it writes to the directory it starts in are kept
        as artifacts; /tmp is for what need not be kept.
        """
        context = tool_context()
        try:
            ran = await box.run(code, context.workspace)
        except SandboxUnavailableError as exc:
            message = f"no code can be run here: {exc}. Go on without it, or say that this is missing"
            raise ToolError(message, code="sandbox_unavailable") from exc
        left_out = list(ran.left_out)
        kept: list[str] = []
        for name, data in ran.artifacts.items():
            if context.keeps_artifacts:
                await context.save_artifact(name, data)
                kept.append(f"{name} ({len(data):,} bytes)")
            else:
                left_out.append(f"{name}: this run has no place to keep artifacts")
        return _told(ran, box, kept, left_out)

    return tool(effect="read", timeout=box.seconds + GRACE_SECONDS)(run_python)


def _told(ran: Ran, box: Sandbox, kept: list[str], left_out: list[str]) -> str:
    """A run as the model reads it."""
    end = STOPPED[ran.stopped].format(seconds=box.seconds, memory_mb=box.memory_mb) if ran.stopped else "ended"
    parts = {"stdout": ran.stdout, "stderr": ran.stderr, "artifacts": "\n".join(kept), "not kept": "\n".join(left_out)}
    shown = [f"--- {title}\n{text.rstrip()}" for title, text in parts.items() if text.strip()]
    return "\n".join([f"{end}, exit status {ran.exit}", *shown])

"""Agents for `test_mcp`: one with the tools of an MCP server, one without."""

import os
import sys
from pathlib import Path

from agent_core import Agent
from agent_core.mcp import McpServer, from_env

SERVER = Path(__file__).parent.parent / "worker/mcp_server.py"

clerk = Agent(
    name="clerk",
    instructions="Play the script.",
    model="claude-haiku-4-5",
    mcp=[
        McpServer(
            name="files",
            command=[sys.executable, str(SERVER), os.environ["NIGHTSHIFT_DATA_DIR"]],
            env={"TOKEN": from_env("NIGHTSHIFT_LOG_FORMAT", "a-")},
            effects={"secret": "read"},
            timeout=2,
        )
    ],
)
loner = Agent(name="loner", instructions="Play the script.", model="claude-haiku-4-5")

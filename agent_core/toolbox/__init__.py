"""Built-in tools, each safe by default. A tool that needs a setting is made by a function: `http_get(allow=[…])`."""

from agent_core.questions import ask_human
from agent_core.toolbox.files import list_files, read_file, write_file
from agent_core.toolbox.http import http_get
from agent_core.toolbox.python import run_python
from agent_core.toolbox.search import search_files
from agent_core.toolbox.sql import query
from agent_core.toolbox.webhook import WebhookTarget, send_webhook

__all__ = [
    "WebhookTarget",
    "ask_human",
    "http_get",
    "list_files",
    "query",
    "read_file",
    "run_python",
    "search_files",
    "send_webhook",
    "write_file",
]

"""Logging for every process: structlog, as lines for people or as JSON for machines, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from agent_core.redaction import Redactor


def configure_logging(log_format: Literal["json", "console"], level: str, redactor: Redactor) -> None:
    """Sets logging up for the whole process, libraries included. What is logged is redacted last, tracebacks too."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # a plain traceback: the default shows local variables, which hold secrets, and takes seconds of the event loop
        plain = structlog.dev.plain_traceback
        last.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain))
    last.append(lambda _, __, line: redactor.text(str(line)))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx2", "httpcore2", "aiohttp.access", "asyncio", "rq.worker"):
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))

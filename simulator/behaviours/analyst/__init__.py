"""The data analyst: describes a table, queries it, writes a report of the figures that came back, and saves it.

It knows the tools describe_table, query and save_artifact. What is left to do is read off the conversation.
"""

from __future__ import annotations

import re
from typing import Any

from simulator.behaviours.analyst import plan, report
from simulator.behaviours.analyst.question import read_question
from simulator.behaviours.analyst.table import Query, Result, Table
from simulator.conversation import Exchange, Task, current_task
from simulator.reply import Reply, answer, call_tools

Json = dict[str, Any]

TOOLS = frozenset({"describe_table", "query", "save_artifact"})
REPORT = "report.md"
FILE_NAME = re.compile(r"[\w.\-]+\.(?:csv|tsv|jsonl?|ndjson|parquet|log|txt)(?:\.gz)?\b")


def reply(body: Json) -> Reply:
    """The next step: describe, query in two rounds, save the report, or give it as the answer."""
    task = current_task(body["messages"])
    described = task.of("describe_table")
    table = next((t for e in reversed(described) if (t := Table.of(e.data()))), None)
    if table is None:
        file = _file_to_describe(task, described)
        if file is not None:
            return call_tools("First I look at the shape of the data.", ("describe_table", {"file": file}))
        return _deliver(task, report.failure(described[-1].text))
    return _analyse(task, table)


def _file_to_describe(task: Task, described: list[Exchange]) -> str | None:
    """The file that the user names, then the job's first one; None when both were tried."""
    named = FILE_NAME.search(task.text)
    wanted = [named.group(), ""] if named else [""]
    return wanted[len(described)] if len(described) < len(wanted) else None


def _analyse(task: Task, table: Table) -> Reply:
    question = read_question(task.text, table)
    ran = {str(e.input.get("sql")): e for e in task.of("query")}
    results: list[Result] = []
    for words, queries in plan.rounds(table, question):
        if due := _due(queries, ran):
            return call_tools(words, *(("query", {"sql": sql}) for sql in due))
        results += [_result(query, ran) for query in queries]
    return _deliver(task, report.write(table, question, results))


def _due(queries: list[Query], ran: dict[str, Exchange]) -> list[str]:
    """The SQL of a round that has not run yet: all of it, then the simpler forms of what failed."""
    if fresh := [query.sql for query in queries if query.sql not in ran]:
        return fresh
    failed = [query.simpler for query in queries if ran[query.sql].data() is None]
    return [sql for sql in failed if sql is not None and sql not in ran]


def _result(query: Query, ran: dict[str, Exchange]) -> Result:
    """What the query gave, or failing that its simpler form."""
    for sql in (query.sql, query.simpler):
        if sql is not None and (data := ran[sql].data()) is not None:
            return Result.of(query, sql, data)
    return Result(query, query.sql, [], [], error=ran[query.sql].text)


def _deliver(task: Task, text: str) -> Reply:
    """Saves the report; once that was tried, the report is the answer."""
    saved = task.of("save_artifact")
    if not saved:
        return call_tools("I write the report.", ("save_artifact", {"name": REPORT, "content": text}))
    if saved[-1].is_error:
        return answer(f"{text}\nThe report could not be saved: {saved[-1].text}\n")
    return answer(text)

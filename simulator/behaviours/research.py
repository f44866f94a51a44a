"""Both sides of examples/research: the lead searches, hands each document with a match to a reader, and puts the report
together from what they quote; a reader quotes the lines that have most of the question's words.
"""

from __future__ import annotations

import json
import re
from typing import Any

from simulator.behaviours.plain import NOTE
from simulator.conversation import Exchange, Task, current_task, gist
from simulator.reply import Reply, answer, call_tools

Json = dict[str, Any]

LEAD = frozenset({"delegate", "search_files"})
READER = frozenset({"read_file", "search_files"})
DOCUMENT = re.compile(r"^Document: (\S+)$", re.MULTILINE)
FILES = re.compile(r"^Files of this job: .*$", re.MULTILINE)
WORD = re.compile(r"[^\W\d_]{4,}")
COMMON = {"about", "does", "documents", "from", "have", "into", "many", "much", "over", "question", "read", "reason",
          "some", "tell", "than", "that", "their", "them", "then", "there", "these", "they", "this", "what", "when",
          "where", "which", "will", "with", "would", "your"}  # fmt: skip
MOST_WORDS, STEM_CHARS = 12, 6
PASSAGES = 3


def reply(body: Json) -> Reply | None:
    """The next step of a lead or of a reader; None when the request is of neither."""
    properties = (((body.get("output_config") or {}).get("format") or {}).get("schema") or {}).get("properties") or {}
    names = {tool["name"] for tool in body.get("tools") or []}
    if "tool_choice" in body:
        return None
    if names >= LEAD and "findings" in properties:
        return _lead(current_task(body["messages"]))
    if names >= READER and "passages" in properties:
        return _reader(current_task(body["messages"]))
    return None


def _lead(task: Task) -> Reply:
    question = FILES.sub("", task.text).strip()
    searches, readings = task.of("search_files"), task.of("delegate")
    if not searches:
        given = {"pattern": _pattern(question), "regex": True, "ignore_case": True}
        return call_tools("I look for the documents that may speak of this.", ("search_files", given))
    files = sorted({match["path"] for match in _matches(searches)})
    if files and not readings:
        orders = [{"agent": "reader", "task": f"Question: {gist(question, 1000)}\nDocument: {file}"} for file in files]
        return call_tools(f"{len(files)} documents, a reader for each.", *(("delegate", order) for order in orders))
    return _report(readings)


def _report(readings: list[Exchange]) -> Reply:
    findings: list[Json] = []
    gaps = [NOTE]
    for reading in readings:
        found = (reading.data() or {}).get("output")
        document = DOCUMENT.findall(str(reading.input.get("task")))
        if not isinstance(found, dict):
            gaps.append(f"{', '.join(document)} was not read: {gist(reading.text)}")
        elif found.get("passages"):
            findings.append({"statement": found["summary"], "citations": found["passages"]})
    told = " ".join(finding["citations"][0]["quote"] for finding in findings)
    said = f"What the documents say, in their own words: {told}" if told else "The documents say nothing on this."
    return answer(json.dumps({"answer": said, "findings": findings, "gaps": gaps}, ensure_ascii=False))


def _reader(task: Task) -> Reply:
    named = DOCUMENT.search(task.text)
    question = DOCUMENT.sub("", FILES.sub("", task.text)).removeprefix("Question:").strip()
    file = named.group(1) if named else "*"
    searches = task.of("search_files")
    if not searches:
        given = {"pattern": _pattern(question), "glob": file, "regex": True, "ignore_case": True}
        return call_tools(f"I look through {file}.", ("search_files", given))
    best = _best(_matches(searches), question)
    if best and not task.of("read_file"):
        return call_tools("I read what stands around that.", ("read_file", {"path": best[0]["path"]}))
    passages = [{"file": m["path"], "line": m["line"], "quote": m["text"].strip(" -")} for m in best]
    summary = f"{file} speaks of it in {len(passages)} lines." if passages else f"{file} says nothing on the question."
    return answer(json.dumps({"summary": summary, "passages": passages}, ensure_ascii=False))


def _matches(searches: list[Exchange]) -> list[Json]:
    return [match for search in searches for match in (search.data() or {}).get("matches", [])]


def _best(matches: list[Json], question: str) -> list[Json]:
    """The lines with most of the question's words, in the order of the document; headings go last."""
    words = _words(question)
    ranked = sorted(matches, key=lambda m: (m["text"].startswith("#"), -sum(w in m["text"].lower() for w in words)))
    return sorted(ranked[:PASSAGES], key=lambda m: int(m["line"]))


def _words(question: str) -> list[str]:
    """The beginnings of the question's words, without those that any question may have."""
    found = (word.lower() for word in WORD.findall(question))
    return list(dict.fromkeys(word[:STEM_CHARS] for word in found if word not in COMMON))[:MOST_WORDS]


def _pattern(question: str) -> str:
    return "|".join(re.escape(word) for word in _words(question)) or "."

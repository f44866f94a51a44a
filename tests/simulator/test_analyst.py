"""The analyst behaviour, driven to its end over real files and a real DuckDB."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from simulator.behaviours.analyst.question import read_question
from simulator.behaviours.analyst.table import Table

Json = dict[str, Any]

SALES = """day,region,product,price,quantity
2026-01-03,north,kettle,19.90,3
2026-01-20,south,toaster,35.00,1
2026-02-01,north,"lamp, large",80.50,2
2026-02-14,,kettle,18.10,5
2026-03-02,south,kettle,21.00,
2026-03-09,west,toaster,33.00,4
"""


class Desk:
    """The analyst's three tools over one CSV file, and the loop that runs them."""

    def __init__(self, path: Path, fails: Callable[[str], bool] = lambda sql: False) -> None:
        self.path = path
        self.fails = fails
        self.db = duckdb.connect()
        self.db.execute("CREATE TABLE data AS SELECT * FROM read_csv(?, header=true)", [str(path)])
        self.queries: list[str] = []
        self.answers: list[Json] = []
        self.saved: dict[str, str] = {}
        self.turns: list[list[str]] = []

    def describe_table(self, file: str = "") -> Json:
        if file not in ("", self.path.name):
            raise LookupError(f"no file {file}")
        columns = []
        for name, type_ in self.db.execute("SELECT column_name, column_type FROM (DESCRIBE data)").fetchall():
            quoted = '"' + name.replace('"', '""') + '"'
            figures = f"count(DISTINCT {quoted}), count(*) - count({quoted}), min({quoted}), max({quoted})"
            [(distinct, nulls, low, high)] = self.db.execute(f"SELECT {figures} FROM data").fetchall()
            columns.append({"name": name, "type": type_, "distinct": distinct, "nulls": nulls, "min": low, "max": high})
        [(rows,)] = self.db.execute("SELECT count(*) FROM data").fetchall()
        return {"file": self.path.name, "table": "data", "rows": rows, "columns": columns, "other_files": ["y.json"]}

    def query(self, sql: str) -> Json:
        self.queries.append(sql)
        if self.fails(sql):
            raise LookupError("the query failed")
        found = self.db.execute(sql)
        columns = [c[0] for c in found.description or []]
        rows = [list(row) for row in found.fetchmany(200)]
        answer = {"columns": columns, "rows": rows, "row_count": len(rows), "truncated": False}
        self.answers.append(answer)
        return answer

    def save_artifact(self, name: str, content: str) -> Json:
        self.saved[name] = content
        return {"artifact": name, "bytes": len(content.encode())}

    async def work(self, client: Any, text: str) -> str:
        """Runs the agent loop and returns its final answer."""
        names = ("describe_table", "query", "save_artifact")
        tools = [{"name": n, "description": n, "input_schema": {"type": "object"}} for n in names]
        messages: list[Json] = [{"role": "user", "content": text}]
        for _ in range(10):
            request = {"model": "claude-sonnet-5-5", "max_tokens": 16_000, "tools": tools, "messages": messages}
            async with client.messages.stream(**request) as stream:
                reply = await stream.get_final_message()
            calls = [block for block in reply.content if block.type == "tool_use"]
            self.turns.append([call.name for call in calls])
            messages.append({"role": "assistant", "content": reply.to_dict()["content"]})
            if reply.stop_reason == "end_turn":
                return str(reply.content[0].text)
            messages.append({"role": "user", "content": [self._result(call) for call in calls]})
        raise AssertionError("the analyst does not come to an end")

    def _result(self, call: Any) -> Json:
        block = {"type": "tool_result", "tool_use_id": call.id}
        try:
            return {**block, "content": json.dumps(getattr(self, call.name)(**call.input), default=str)}
        except (LookupError, duckdb.Error) as exc:
            return {**block, "content": str(exc), "is_error": True}


@pytest.fixture
def desk(tmp_path):
    def make(text, fails=lambda sql: False):
        path = tmp_path / "sales.csv"
        path.write_text(text, encoding="utf-8")
        return Desk(path, fails)

    return make


async def test_a_report_is_written_saved_and_given_as_the_answer(client, desk):
    sales = desk(SALES)
    report = await sales.work(client, "Analyse the file.")
    assert sales.saved == {"report.md": report}
    assert sales.turns[0] == ["describe_table"]
    assert sales.turns[-2:] == [["save_artifact"], []]
    assert max(map(len, sales.turns)) > 1  # several calls in one turn
    assert len(sales.queries) <= 5
    assert report.startswith("# ")
    assert "simulated model" in report
    assert "6 rows" in report
    assert "| number of rows | 6 |" in report
    assert "| missing in region | 1 |" in report
    assert "| price | 18.1 | 34.58 | 80.5 | 207.5 |" in report
    assert "Not looked at: y.json" in report


async def test_every_figure_of_the_tables_comes_from_a_query(client, desk):
    sales = desk(SALES)
    report = await sales.work(client, "Which products sell best?")
    seen = {value for answer in sales.answers for row in answer["rows"] for value in row}
    for line in report.splitlines():
        for cell in line.strip("| ").split(" | ") if line.startswith("| ") else ():
            if cell.replace(".", "").isdigit():
                assert any(isinstance(v, int | float) and float(cell) == pytest.approx(v, abs=0.005) for v in seen)


async def test_a_report_is_the_same_each_time(client, desk):
    assert await desk(SALES).work(client, "Go.") == await desk(SALES).work(client, "Go.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is the average price by region?", "**north** has the highest average of price: **50.2**"),
        ("Total quantity per product, please", "**kettle** has the highest sum of quantity: **8**"),
        ("count by product", "**kettle** has the highest number of rows: **3**"),
        ("Which region has the lowest total price?", "has the lowest sum of price: **18.1**"),
        ("median price by product", "**lamp, large** has the highest median of price: **80.5**"),
        ("prices over time", "| 2026-02 | 2 | 98.6 | 49.3 |"),
        ("Show me the top 2 products by quantity", "## Highest quantity\n\n| product | quantity |\n| --- | ---: |\n"
         "| kettle | 5 |\n| toaster | 4 |\n\n"),
    ],
)  # fmt: skip
async def test_it_answers_what_was_asked(client, desk, text, words):
    assert words in await desk(SALES).work(client, text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,city\nAnn,Ulm\nBob,Ulm\nCid,Bonn\n", "3 rows"),
        ("n\n4\n5\n6\n", "| n | 4 | 5 | 6 | 15 |"),
        ("word\nhello\n", "1 row in 1 column."),
        ("a,b\n", "| number of rows | 0 |"),
        ("Straße,größe | cm,売上\nÄ,1,10\nÖ,2,20\nÄ,4,40\n", "**Ä** has the highest sum of"),
        ('"rows","sum","say ""hi"""\nx,1,2\nx,2,3\ny,3,9\n', "3 rows"),
        ("flag,ok\ntrue,yes\nfalse,no\ntrue,yes\n", "Rows by flag"),
    ],
    ids=["no numbers", "one column", "one row", "no rows", "unicode", "awkward names", "booleans"],
)
async def test_it_copes_with_any_table(client, desk, content, words):
    table = desk(content)
    report = await table.work(client, "What is in here?")
    assert words in report
    assert "failed" not in report
    assert len(table.answers) == len(table.queries)


async def test_a_query_that_fails_is_replaced_by_a_simpler_one(client, desk):
    sales = desk(SALES, fails=lambda sql: "GROUP BY 1" in sql or "missing" in sql)
    report = await sales.work(client, "count by product")
    assert "| number of rows | 6 |" in report
    assert "| kettle | 3 |" in report
    assert "replaced by a simpler one" in report


async def test_with_every_query_failing_it_still_comes_to_an_end(client, desk):
    report = await desk(SALES, fails=lambda sql: True).work(client, "Go.")
    assert report.count("This query failed: the query failed") >= 3
    assert "6 rows" in report


async def test_a_file_that_is_named_is_asked_for_and_else_the_first(client, desk):
    sales = desk(SALES)
    assert "6 rows" in await sales.work(client, "Look at sales.csv.")
    assert sales.turns.count(["describe_table"]) == 1
    other = desk(SALES)
    assert "6 rows" in await other.work(client, "Look at other.csv.")
    assert other.turns.count(["describe_table"]) == 2


async def test_without_any_table_it_says_so(client, desk):
    sales = desk(SALES)
    sales.describe_table = lambda file="": sales.query("SELECT * FROM nothing")
    assert "could not be read" in await sales.work(client, "Go.")


async def test_a_report_that_may_not_be_saved_is_still_given(client, desk):
    sales = desk(SALES)
    sales.save_artifact = lambda name, content: sales.query("SELECT denied")
    report = await sales.work(client, "Go.")
    assert "6 rows" in report
    assert "could not be saved" in report


def table(*columns, rows=1000):
    described = [{"name": n, "type": t, "distinct": d, "nulls": 0, "min": 1, "max": d} for n, t, d in columns]
    found = Table.of({"file": "f.csv", "table": "f", "rows": rows, "columns": described})
    assert found is not None
    return found


ORDERS = table(("order_id", "BIGINT", 1000), ("category", "VARCHAR", 8), ("status", "BIGINT", 4),
               ("unitPrice", "DOUBLE", 500), ("地区", "VARCHAR", 5), ("tags", "VARCHAR[]", 9))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "measure", "group", "aggregate", "top"),
    [
        ("", "unitPrice", "category", "avg", None),
        ("sum of unit prices by categories", "unitPrice", "category", "sum", None),
        ("How many orders per status?", "unitPrice", "status", "count", None),
        ("top 5 by unit_price", "unitPrice", "category", "avg", 5),
        ("按地区统计", "unitPrice", "地区", "avg", None),
        ("the 3 highest order ids", "order_id", "category", "sum", 3),
    ],
)
def test_a_question_is_read_for_columns_and_aggregates(text, measure, group, aggregate, top):
    asked = read_question(text, ORDERS)
    assert asked.measure is not None
    assert asked.group is not None
    assert (asked.measure.name, asked.group.name, asked.aggregate, asked.top) == (measure, group, aggregate, top)


def test_what_is_no_description_of_a_table_is_none():
    assert Table.of(None) is None
    assert Table.of({"file": "x"}) is None
    assert Table.of({"file": "x", "table": "x", "rows": "many", "columns": []}) is None

"""The analyst's tables, queries and limits, on real files and a real DuckDB."""

from __future__ import annotations

import asyncio
import csv
import gc
import gzip
import json
import math
import random
import tempfile
from collections import defaultdict
from pathlib import Path

import duckdb
import pytest

from agent_core import ToolError
from agent_core.tools import Registry, ToolContext, ToolResult
from examples.analyst import agent
from examples.analyst.agent import analyst, describe, run_sql
from worker.loader import load_agents

REGIONS = ["north", "south", "east", 'wëst, "far"', ""]
OUT_OF_REACH = "only this test may see it"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "job=1 [files]"  # a path that a glob and a partition reader would both misread
    directory.mkdir()
    return directory


def write(workspace: Path, name: str, content: str | bytes) -> Path:
    path = workspace / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a CSV of 50,000 rows."""
    workspace = tmp_path_factory.mktemp("sales")
    chance = random.Random(7)
    with (workspace / "sales.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "region", "amount", "units", "day"])
        for number in range(50_000):
            day = f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
            amount = "" if chance.random() < 0.01 else f"{chance.uniform(-50, 500):.2f}"
            rows.writerow([number, chance.choice(REGIONS), amount, chance.randint(1, 9), day])
    return workspace


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- figures


async def test_a_grouped_sum_is_what_plain_python_adds_up(sales: Path) -> None:
    units: dict[str | None, int] = defaultdict(int)
    amounts: dict[str | None, list[float]] = defaultdict(list)
    for row in rows_of(sales / "sales.csv"):
        units[row["region"] or None] += int(row["units"])
        amounts[row["region"] or None] += [float(row["amount"])] if row["amount"] else []

    result = await run_sql(
        sales, "SELECT region, sum(units), sum(amount), count(amount) FROM sales GROUP BY region ORDER BY region;"
    )

    assert result["row_count"] == len(units) == 5
    assert result["truncated"] is False
    for region, total, amount, counted in result["rows"]:
        assert total == units[region]
        assert amount == pytest.approx(math.fsum(amounts[region]))
        assert counted == len(amounts[region])


async def test_a_description_is_what_plain_python_counts(sales: Path) -> None:
    rows = rows_of(sales / "sales.csv")
    amounts = [float(row["amount"]) for row in rows if row["amount"]]

    described = await describe(sales)

    columns = {column["name"]: column for column in described["columns"]}
    assert (described["file"], described["table"], described["rows"]) == ("sales.csv", "sales", 50_000)
    assert described["other_files"] == []
    assert [c["type"] for c in described["columns"]] == ["BIGINT", "VARCHAR", "DOUBLE", "BIGINT", "DATE"]
    assert columns["id"] == {
        "name": "id", "type": "BIGINT", "distinct": 50_000, "nulls": 0, "min": 0, "max": 49_999, "examples": [0, 1, 2],
    }  # fmt: skip
    assert columns["amount"]["nulls"] == 50_000 - len(amounts)
    assert columns["amount"]["distinct"] == len(set(amounts))
    assert (columns["amount"]["min"], columns["amount"]["max"]) == (min(amounts), max(amounts))
    assert columns["day"]["min"] == min(row["day"] for row in rows)
    assert columns["region"]["distinct"] == 4
    assert set(columns["region"]["examples"]) <= set(REGIONS)


async def test_results_are_cut_at_200_rows(sales: Path) -> None:
    result = await run_sql(sales, "SELECT id FROM sales ORDER BY id DESC")
    assert result["truncated"] is True
    assert result["row_count"] == 200
    assert result["rows"][:2] == [[49_999], [49_998]]
    exact = await run_sql(sales, "SELECT id FROM sales LIMIT 200")
    assert (exact["row_count"], exact["truncated"]) == (200, False)


async def test_results_are_cut_at_their_size(sales: Path) -> None:
    result = await run_sql(sales, "SELECT repeat('é', 400) FROM sales")
    assert result["truncated"] is True
    assert 0 < result["row_count"] < 60
    with pytest.raises(ToolError, match="select fewer columns"):
        await run_sql(sales, "SELECT " + ", ".join(["repeat('x', 490)"] * 60))


async def test_a_long_cell_is_cut(sales: Path) -> None:
    result = await run_sql(sales, "SELECT repeat('x', 100000), list_resize([1], 9000)")
    assert [len(cell) for cell in result["rows"][0]] == [501, 501]


async def test_values_are_json(sales: Path) -> None:
    result = await run_sql(
        sales,
        """SELECT DATE '2026-02-03', TIMESTAMP '2026-02-03 04:05:06', 'nan'::DOUBLE, 'inf'::DOUBLE, 1.50::DECIMAL(9,2),
        '\\xAB'::BLOB, NULL, TRUE, MAP {DATE '2026-01-01': [1.5]}, INTERVAL 36 HOUR, sum(id), '9999-12-31'::DATE + 1
        FROM sales""",
    )
    expected = [
        "2026-02-03", "2026-02-03T04:05:06", None, None, 1.5,
        "ab", None, True, {"2026-01-01": [1.5]}, "1 day, 12:00:00", 1_249_975_000,
    ]  # fmt: skip
    assert result["rows"][0][:-1] == expected
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# ---- what SQL may not do


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


HOSTILE = [
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM system.main.read_text('{secret}')",
    "FROM '{secret}'",
    'SELECT * FROM "{secret}"',
    "SELECT (SELECT max(content) FROM read_text('{secret}')) FROM sales",
    "WITH t AS (SELECT * FROM read_text('{secret}')) SELECT * FROM t",
    "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM sales'))",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('{directory}/*')",
    "DESCRIBE SELECT * FROM read_text('{secret}')",
    "SUMMARIZE FROM read_text('{secret}')",
    "SELECT * FROM read_csv('https://127.0.0.1:1/x.csv')",
    "SELECT * FROM 'https://127.0.0.1:1/x.csv'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT getenv('HOME')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM enable_logging(storage := 'file', storage_path := '{directory}/log')",
    "COPY sales TO '{directory}/out.csv'",
    "COPY (SELECT 1) TO '{directory}/out.csv'",
    "COPY sales FROM '{secret}'",
    "EXPORT DATABASE '{directory}/out'",
    "ATTACH '{directory}/out.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA enable_external_access=true",
    "PRAGMA database_list",
    "SET enable_external_access=true",
    "SET memory_limit='64GB'",
    "RESET ALL",
    "CALL duckdb_settings()",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE MACRO sales() AS 1",
    "DROP TABLE sales",
    "DELETE FROM sales",
    "UPDATE sales SET units = 0",
    "INSERT INTO sales VALUES (1, 'x', 1, 1, '2026-01-01')",
    "WITH gone AS (DELETE FROM sales RETURNING *) SELECT * FROM gone",
    "TRUNCATE sales",
    "BEGIN TRANSACTION",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE x AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE sales",
    "",
    ";",
    "-- nothing",
    "SELECT workspace FROM workspace",
    "SELECT " + "(" * 4000 + "1" + ")" * 4000,
    "SELECT " + "1+" * 4000 + "1",
    "SELECT " + "[" * 4000 + "1" + "]" * 4000,
    "SELECT $1",
]


@pytest.mark.parametrize("sql", HOSTILE)
async def test_sql_reaches_nothing_but_the_tables(sales: Path, tmp_path: Path, sql: str) -> None:
    secret = write(tmp_path, "secret.csv", f"a\n{OUT_OF_REACH}\n")
    before = names_in(tmp_path)

    with pytest.raises(ToolError) as refused:
        await run_sql(sales, sql.replace("{secret}", str(secret)).replace("{directory}", str(tmp_path)))

    assert OUT_OF_REACH not in str(refused.value)
    assert names_in(tmp_path) == before
    assert (await run_sql(sales, "SELECT count(*), sum(units) > 50000 FROM sales"))["rows"] == [[50_000, True]]


@pytest.mark.parametrize("opening", ["SELECT * FROM read_csv('{}')", "FROM '{}'", "FROM read_text('{}')"])
async def test_not_even_the_jobs_own_file_is_opened_again(sales: Path, opening: str) -> None:
    with pytest.raises(ToolError):
        await run_sql(sales, opening.format(sales / "sales.csv"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 -- a remark; with a semicolon",
        "SELECT 1; -- done",
        "DESCRIBE sales",
        "SUMMARIZE sales",
        "SHOW TABLES",
        "FROM sales LIMIT 1",
        "VALUES (1), (2)",
        "SELECT * FROM range(3) JOIN generate_series(2) ON true",
        "SELECT region, rank() OVER (ORDER BY id) FROM sales QUALIFY rank() OVER (ORDER BY id) < 3",
        "FROM (PIVOT sales ON units IN (1, 2) USING sum(amount) GROUP BY region)",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
    ],
)
async def test_what_an_analyst_needs_runs(sales: Path, sql: str) -> None:
    assert (await run_sql(sales, sql))["row_count"] > 0


async def test_errors_say_what_to_do(sales: Path) -> None:
    with pytest.raises(ToolError, match=r"nope does not exist(.|\n)*The tables are: sales\."):
        await run_sql(sales, "SELECT * FROM nope")
    with pytest.raises(ToolError, match="amuont"):
        await run_sql(sales, "SELECT amuont FROM sales")
    with pytest.raises(ToolError, match=r"syntax error(.|\n)*LINE 1: SELEC 1"):
        await run_sql(sales, "SELEC 1")
    with pytest.raises(ToolError, match="cast it"):
        await run_sql(sales, "SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00'")


# ---- time


RUNAWAY = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3"


async def test_a_runaway_query_is_ended(sales: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ToolError, match=r"ended after 0\.3 seconds") as ended:
        await run_sql(sales, RUNAWAY, seconds=0.3)
    assert ended.value.code == "timeout"
    assert (await run_sql(sales, "SELECT count(*) FROM sales"))["rows"] == [[50_000]]
    gc.collect()
    assert not caplog.records  # asyncio would complain of a failure that nobody took


async def test_the_loop_goes_on_while_a_query_runs_and_cancelling_ends_the_query(sales: Path) -> None:
    runaway = asyncio.create_task(run_sql(sales, RUNAWAY, seconds=600))
    answers = await asyncio.gather(*(run_sql(sales, f"SELECT {n}") for n in range(3)))
    assert [a["rows"] for a in answers] == [[[0]], [[1]], [[2]]]
    assert not runaway.done()
    runaway.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runaway  # returns after the thread has stopped, or the test's own time limit ends it


async def test_many_queries_on_one_workspace(sales: Path) -> None:
    queries = [run_sql(sales, f"SELECT {n}, count(*) FROM sales WHERE units = {n}") for n in range(1, 10)]
    described, *results = await asyncio.gather(describe(sales), *queries)
    assert described["rows"] == 50_000
    assert [r["rows"][0][0] for r in results] == list(range(1, 10))
    assert sum(r["rows"][0][1] for r in results) == 50_000


# ---- files


async def test_json_array_lines_and_tsv(workspace: Path) -> None:
    write(workspace, "a.json", json.dumps([{"n": 1, "tags": ["x"]}, {"n": 2.5, "tags": []}]))
    write(workspace, "b.jsonl", '{"n": 1, "seen": "2026-01-01T00:00:00Z"}\n{"n": 2, "extra": {"k": "v"}}\n')
    write(workspace, "c.tsv", "x\ty, z\n1\tone, two\n")

    assert (await run_sql(workspace, "SELECT sum(n) FROM a"))["rows"] == [[3.5]]
    assert (await run_sql(workspace, "SELECT n, seen, extra.k FROM b"))["rows"] == [
        [1, "2026-01-01T00:00:00", None],
        [2, None, "v"],
    ]
    assert (await run_sql(workspace, 'SELECT "y, z" FROM c'))["rows"] == [["one, two"]]
    described = await describe(workspace, "a.json")
    assert described["columns"][1]["examples"] == ["[x]", "[]"]
    assert described["other_files"] == ["b.jsonl", "c.tsv"]


async def test_a_log_has_its_lines(workspace: Path) -> None:
    write(workspace, "app.log", b'start, "quoted\n\n2026-01-01\r\nlast \xff line')
    result = await run_sql(workspace, "SELECT line_number, line FROM app ORDER BY line_number")
    assert result["rows"] == [[1, 'start, "quoted'], [2, ""], [3, "2026-01-01"], [4, "last ÿ line"]]


async def test_an_access_log_is_parsed(workspace: Path) -> None:
    write(
        workspace,
        "access.log",
        '127.0.0.1 - ann [10/Oct/2026:13:55:36 +0200] "GET /a?b=1 HTTP/1.1" 200 2326 "-" "curl/8"\n'
        '::1 - - [10/Oct/2026:13:55:37 +0000] "POST /x HTTP/2" 404 -\n'
        "a broken line\n",
    )
    sql = "SELECT host, remote_user, time, method, path, status, bytes FROM access ORDER BY line_number"
    assert (await run_sql(workspace, sql))["rows"] == [
        ["127.0.0.1", "ann", "2026-10-10T11:55:36", "GET", "/a?b=1", 200, 2326],
        ["::1", None, "2026-10-10T13:55:37", "POST", "/x", 404, None],
        [None] * 7,
    ]


async def test_parquet(workspace: Path) -> None:
    duckdb.execute(f"COPY (SELECT 'ä' AS name, 3 AS n) TO '{workspace}/made.parquet'")
    assert (await describe(workspace))["columns"][0]["examples"] == ["ä"]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("Größe 2026.csv", "groe_2026"),
        ("2026.csv", "t_2026"),
        ("продажи.csv", "t"),
        ("order.csv", "t_order"),
        ("a*[b]?.csv", "a_b"),
        ("x.y.csv.gz", "x_y"),
        ("UPPER.CSV", "upper"),
    ],
)
async def test_odd_file_names(workspace: Path, name: str, table: str) -> None:
    write(workspace, name, "a\n1\n")
    described = await describe(workspace, name)
    assert (described["file"], described["table"]) == (name, table)
    assert (await run_sql(workspace, f"SELECT a FROM {table}"))["rows"] == [[1]]


async def test_tables_of_files_with_one_stem_differ(workspace: Path) -> None:
    write(workspace, "x.csv", "a\n1\n")
    write(workspace, "x.json", '[{"a": 2}]')
    tables = [(await describe(workspace, name))["table"] for name in ("x.csv", "x.json")]
    assert tables == ["x", "x_2"]
    assert (await run_sql(workspace, "SELECT x.a, x_2.a FROM x, x_2"))["rows"] == [[1, 2]]


async def test_odd_columns(workspace: Path) -> None:
    write(workspace, "odd.csv", 'a,A,"naïve ""q"", ☃",select,\n00501,2,"two\nlines",x,\n')
    columns = (await describe(workspace))["columns"]
    assert [c["name"] for c in columns][2:4] == ['naïve "q", ☃', "select"]
    assert columns[0]["examples"] == ["00501"]
    assert columns[2]["examples"] == ["two\nlines"]


@pytest.mark.parametrize(
    "content",
    ["n;é\n1;zoë\n".encode("latin-1"), "n;é\n1;zoë\n".encode("utf-16"), "\ufeffn;é\n1;zoë\n".encode()],
    ids=["latin-1", "utf-16", "byte order mark"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_encodings(workspace: Path, content: bytes, pack) -> None:
    write(workspace, "data.csv.gz", pack(content))
    assert (await run_sql(workspace, "SELECT n, é FROM data"))["rows"] == [[1, "zoë"]]


async def test_types_hold_to_the_last_row(workspace: Path) -> None:
    write(workspace, "late.csv", "a\n" + "1\n" * 30_000 + "x\n")
    described = await describe(workspace)
    assert (described["rows"], described["columns"][0]["type"]) == (30_001, "VARCHAR")


async def test_a_header_alone_is_a_table_without_rows(workspace: Path) -> None:
    write(workspace, "h.csv", "name,city\n")
    described = await describe(workspace)
    assert (described["rows"], [c["name"] for c in described["columns"]]) == (0, ["name", "city"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"", "e.csv is empty"),
        ("e.csv", b"\xef\xbb\xbf\n\n", "e.csv is empty"),
        ("e.json", b"[{", "e.json does not read"),
        ("e.csv", b"a,b\n1,2\n3,4,5\n", "a row longer than the header"),
        ("e.csv.gz", gzip.compress(b"a\n1\n" * 100, mtime=0)[:-9], "e.csv.gz cannot be read"),
        ("e.parquet", b"PAR1 not really", "e.parquet does not read"),
    ],
)
async def test_a_bad_file_is_named_without_its_path_and_spares_the_others(
    workspace: Path, name: str, content: bytes, message: str
) -> None:
    write(workspace, name, content)
    write(workspace, "good.csv", "a\n1\n")
    with pytest.raises(ToolError, match=message) as failed:
        await describe(workspace, name)
    assert not any(where in str(failed.value) for where in (str(workspace), tempfile.gettempdir()))
    assert (await run_sql(workspace, "SELECT a FROM good"))["rows"] == [[1]]
    with pytest.raises(ToolError, match=message):
        await run_sql(workspace, "SELECT * FROM e")


async def test_no_file_unknown_file_and_a_file_that_came_later(workspace: Path) -> None:
    write(workspace, "picture.png", b"\x89PNG")
    (workspace / "link.csv").symlink_to("/etc/hostname")
    with pytest.raises(ToolError, match="no data file; readable are CSV"):
        await describe(workspace)
    with pytest.raises(ToolError, match="no data file"):
        await run_sql(workspace, "SELECT 1")
    write(workspace, "first.csv", "a\n1\n")
    with pytest.raises(ToolError, match=r"the files are: first\.csv"):
        await describe(workspace, "../../etc/passwd")
    write(workspace, "second.csv", "a\n2\n")
    assert (await describe(workspace))["other_files"] == ["second.csv"]
    assert (await describe(workspace, "second"))["file"] == "second.csv"


async def test_a_file_has_a_largest_size(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MAX_FILE_BYTES", 1000)
    write(workspace, "bomb.csv.gz", gzip.compress(b"a\n" + b"1\n" * 1000))
    with pytest.raises(ToolError, match="more than 1,000 bytes"):
        await describe(workspace)


# ---- the agent


class Kept:
    """An artifact store in memory."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}

    async def save(self, job_id: str, name: str, data: bytes) -> dict[str, object]:
        self.files[job_id, name] = data
        return {"artifact": name, "id": "file_1", "bytes": len(data)}

    async def load(self, job_id: str, name: str) -> bytes:
        return self.files[job_id, name]


async def call(workspace: Path, tool: str, arguments: dict[str, object], store: Kept | None = None) -> ToolResult:
    context = ToolContext("job_1", "call_1", workspace, store)
    return await Registry(analyst.tools).call(tool, arguments, context)


async def test_the_tools_answer_as_the_model_sees_them(workspace: Path) -> None:
    write(workspace, "x.csv", "a\n1\n2\n")
    store = Kept()
    described = await call(workspace, "describe_table", {})
    assert json.loads(described.content)["rows"] == 2
    counted = await call(workspace, "query", {"sql": "SELECT sum(a) AS s FROM x"})
    assert json.loads(counted.content) == {"columns": ["s"], "rows": [[3]], "row_count": 1, "truncated": False}
    saved = await call(workspace, "save_artifact", {"name": "report.md", "content": "# Größe\n"}, store)
    assert json.loads(saved.content) == {"artifact": "report.md", "bytes": 10}
    assert store.files == {("job_1", "report.md"): "# Größe\n".encode()}


@pytest.mark.parametrize("name", ["../report.md", "/tmp/report.md", "", ".hidden", "a\nb", "x" * 200])
async def test_an_artifact_has_a_plain_name(workspace: Path, name: str) -> None:
    store = Kept()
    refused = await call(workspace, "save_artifact", {"name": name, "content": "x"}, store)
    assert refused.is_error
    assert store.files == {}


async def test_an_error_reaches_the_model_in_words(workspace: Path) -> None:
    write(workspace, "x.csv", "a\n1\n")
    refused = await call(workspace, "query", {"sql": "DROP TABLE x"})
    assert refused.is_error
    assert "only one SELECT" in json.loads(refused.content)["error"]["message"]


def test_a_worker_loads_it_by_its_path() -> None:
    loaded = load_agents([str(Path(agent.__file__))])
    assert {name: found.version for name, found in loaded.items()} == {"analyst": analyst.version}


def test_the_agents_tools_declare_what_they_do() -> None:
    assert {t.name: t.effect for t in analyst.tools} == {
        "describe_table": "read", "query": "read", "save_artifact": "write",
    }  # fmt: skip
    for tool in analyst.tools:
        assert all("description" in p for p in tool.input_schema["properties"].values())

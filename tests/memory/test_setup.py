"""Long-term memory as settings name it, and what a wrong combination of them says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.settings import MemorySettings, SettingsError, load
from memory.errors import MemoryUnavailableError, NoMemoryError
from memory.scope import Scope
from memory.setup import LazyMemory, make_memory
from memory.store import COLLECTION
from tests.memory.embedded_server import EmbeddedServer

ROOT = Path(__file__).parents[2]
QDRANT = {"QDRANT_URL": "http://127.0.0.1:6333"}
OPENAI = {"EMBEDDER": "openai", "EMBEDDER_MODEL": "m", "EMBEDDER_SIZE": "8"}


def given(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> MemorySettings:
    for name in ("QDRANT_URL", "QDRANT_API_KEY"):
        monkeypatch.delenv(f"NIGHTSHIFT_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    return load(MemorySettings)


def test_without_a_qdrant_there_is_no_memory(monkeypatch):
    assert make_memory(given(monkeypatch, OPENAI)) is None


@pytest.mark.parametrize(
    ("variables", "name", "size"),
    [
        ({}, None, None),
        (OPENAI, "openai-m", 8),
        ({**OPENAI, "EMBEDDER_URL": "http://127.0.0.1:11434/v1", "EMBEDDER_API_KEY": "k"}, "openai-m", 8),
        ({**OPENAI, "EMBEDDER": "voyage", "EMBEDDER_API_KEY": "k"}, "voyage-m", 8),
    ],
)
async def test_the_embedder_is_the_one_of_the_settings(monkeypatch, variables, name, size):
    memory = make_memory(given(monkeypatch, {**QDRANT, **variables}))
    assert memory is not None
    embedder = memory.store.embedder
    assert (embedder and embedder.name, embedder and embedder.size) == (name, size)
    await memory.aclose()


@pytest.mark.parametrize("library", ["fastembed", "sentence-transformers"])
async def test_a_library_has_a_model_of_its_own(monkeypatch, library):
    monkeypatch.setattr("jobs.settings.find_spec", lambda name: name)
    for also, size in (({}, 384), ({"EMBEDDER_MODEL": "m", "EMBEDDER_SIZE": "8"}, 8)):
        memory = make_memory(given(monkeypatch, {**QDRANT, "EMBEDDER": library, **also}))
        assert memory is not None
        assert memory.store.embedder is not None
        assert memory.store.embedder.size == size
        await memory.aclose()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"QDRANT_URL": "localhost:6333"}, "QDRANT_URL is 'localhost:6333': expected a URL like https://host:port"),
        ({"EMBEDDER": "word2vec"}, "EMBEDDER is 'word2vec': input should be 'openai', 'voyage', 'fastembed' or"),
        ({"EMBEDDER": "openai"}, "EMBEDDER_MODEL is None: the embedder openai needs it"),
        ({"EMBEDDER": "openai", "EMBEDDER_MODEL": "m"}, "EMBEDDER_SIZE is None: the embedder openai needs it"),
        ({**OPENAI, "EMBEDDER_SIZE": "0"}, "EMBEDDER_SIZE is '0': input should be greater than or equal to 1"),
        ({**OPENAI, "EMBEDDER_URL": "ftp://x"}, "EMBEDDER_URL is 'ftp://x': expected a URL like https://host:port"),
        ({**OPENAI, "EMBEDDER": "voyage"}, "EMBEDDER_API_KEY is wrong: the embedder voyage needs it"),
        ({"EMBEDDER_MODEL": "m"}, "EMBEDDER_MODEL is 'm': it needs NIGHTSHIFT_EMBEDDER"),
        ({"EMBEDDER_API_KEY": "hunter2"}, "EMBEDDER_API_KEY is wrong: it needs NIGHTSHIFT_EMBEDDER"),
    ],
)
def test_what_does_not_fit_together_is_told_in_one_line(monkeypatch, variables, message):
    with pytest.raises(SettingsError) as caught:
        given(monkeypatch, variables)
    assert str(caught.value).startswith(f"NIGHTSHIFT_{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"EMBEDDER_URL": "http://x"}, "EMBEDDER_URL is 'http://x': the embedder fastembed runs in the process"),
        ({"EMBEDDER_MODEL": "m"}, "EMBEDDER_SIZE is None: the embedder fastembed needs it"),
        ({"EMBEDDER_SIZE": "8"}, "EMBEDDER_SIZE is '8': it needs NIGHTSHIFT_EMBEDDER_MODEL"),
    ],
)
def test_a_library_takes_no_server(monkeypatch, variables, message):
    monkeypatch.setattr("jobs.settings.find_spec", lambda name: name)
    with pytest.raises(SettingsError) as caught:
        given(monkeypatch, {"EMBEDDER": "fastembed", **variables})
    assert str(caught.value).startswith(f"NIGHTSHIFT_{message}")


def test_a_library_that_is_missing_is_told_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr("jobs.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"not installed: pip install 'nightshift\[sentence-transformers\]'"):
        given(monkeypatch, {"EMBEDDER": "sentence-transformers"})


async def test_memory_is_opened_by_its_first_use_and_again_when_that_failed(monkeypatch, embedded_server):
    settings = given(monkeypatch, {"QDRANT_URL": embedded_server.url, "QDRANT_API_KEY": embedded_server.api_key})
    lazy = LazyMemory(settings)
    memory = await lazy.get()
    assert await memory.browse(Scope("acme", "nobody")) == []
    assert await lazy.get() is memory
    await lazy.aclose()


async def test_memory_that_is_away_is_tried_again(monkeypatch, embedded_server):
    lazy = LazyMemory(given(monkeypatch, {"QDRANT_URL": embedded_server.url, "QDRANT_API_KEY": "wrong"}))
    assert lazy.is_set_up
    found = await asyncio.gather(*(lazy.get() for _ in range(3)), return_exceptions=True)
    assert [str(each)[:54] for each in found] == ['memory is not available: Qdrant answered 401: {"status'] * 3
    settings = given(monkeypatch, {"QDRANT_URL": embedded_server.url, "QDRANT_API_KEY": embedded_server.api_key})
    with_the_right_key, with_the_wrong_one = make_memory(settings), lazy._made
    monkeypatch.setattr(lazy, "_made", with_the_right_key)
    assert await lazy.get() is with_the_right_key
    await lazy.aclose()
    assert with_the_wrong_one is not None
    await with_the_wrong_one.aclose()


async def test_memory_that_is_not_set_up_is_told(monkeypatch):
    lazy = LazyMemory(given(monkeypatch, {}))
    assert not lazy.is_set_up
    with pytest.raises(NoMemoryError, match="NIGHTSHIFT_QDRANT_URL is not set"):
        await lazy.get()
    await lazy.aclose()


def test_nothing_is_imported_for_it_before_it_is_made():
    heavy = "{'qdrant_client', 'qdrant_edge', 'numpy'}"
    code = f"import sys, memory.setup, api.app, worker.runtime, cli.main; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


async def test_a_qdrant_that_lost_its_data_is_opened_anew(
    monkeypatch: pytest.MonkeyPatch, embedded_server: EmbeddedServer
) -> None:
    lazy = LazyMemory(
        given(monkeypatch, {"QDRANT_URL": embedded_server.url, "QDRANT_API_KEY": embedded_server.api_key})
    )
    ada = Scope("lost", "ada")
    await (await lazy.get()).remember(ada, "Likes tea.")
    assert await lazy.get() is await lazy.get()
    qdrant = embedded_server.client()
    await qdrant.delete_collection(COLLECTION)
    await qdrant.close()
    with pytest.raises(MemoryUnavailableError):
        await (await lazy.get()).browse(ada)
    assert await (await lazy.get()).browse(ada) == []
    assert (await (await lazy.get()).remember(ada, "Likes tea.")).text == "Likes tea."
    await lazy.aclose()

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent_core.toolbox.web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()

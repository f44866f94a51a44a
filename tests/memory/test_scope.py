"""Scopes, and the ids and payloads that are made under them: no input of a caller widens what is seen."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models

from memory.bm25 import of_query
from memory.errors import InvalidMemoryError, ScopeError
from memory.ids import point_id, public_id, sound_id
from memory.points import Memory, id_of
from memory.ranking import Question, current, of_kinds
from memory.scope import Scope, empty, equals, with_id

NOW = datetime(2026, 3, 1, tzinfo=UTC)
names = st.text(min_size=1, max_size=40).filter(str.isprintable)
scopes = st.builds(Scope, names, names, st.none() | names, st.none() | names)
conditions = st.one_of(
    st.builds(equals, st.sampled_from(["tenant", "user", "agent", "slot", "kind"]), names),
    st.builds(empty, st.sampled_from(["tenant", "user", "valid_to"])),
    st.builds(with_id, st.uuids().map(public_id)),
    st.builds(lambda inner: models.Filter(should=inner), st.lists(st.builds(equals, names, names), max_size=3)),
)
anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), names, st.just({"must": []}))


def pinned(made: models.Filter, scope: Scope) -> bool:
    """Whether nothing passes the filter that is not of the scope: its parts stand in `must`, which all must hold."""
    wanted = [equals(name, value) for name, value in scope.parts().items() if value is not None]
    assert made.should is None
    assert made.min_should is None
    assert isinstance(made.must, list)
    return all(condition in made.must for condition in wanted)


@settings(deadline=None)
@given(scopes, st.lists(conditions, max_size=4), st.lists(conditions, max_size=2))
def test_every_filter_holds_the_scope_whatever_else_it_asks(scope, also, without) -> None:
    for made in (scope.within(*also, without=tuple(without)), scope.exactly(*also, without=tuple(without))):
        assert pinned(made, scope)
        assert len(made.must) >= len(also) + 2
    missing = [empty(name) for name, value in scope.parts().items() if value is None]
    assert all(condition in scope.exactly().must for condition in missing)
    assert pinned(current(scope, NOW, *also), scope)


@settings(deadline=None)
@given(
    scopes,
    st.text(),
    st.lists(st.sampled_from(["semantic", "episodic"]), max_size=2),
    st.booleans(),
    st.integers(1, 100),
)
def test_the_scope_stands_in_every_prefetch_and_in_the_corpus(scope, text, kinds, dense, k) -> None:
    question = Question(scope, of_query(text), NOW, tuple(kinds), [1.0] if dense else None, "model")
    made = question.recall(k)
    assert len(made["prefetch"]) == 1 + dense
    for prefetch in made["prefetch"]:
        assert pinned(prefetch.filter, scope)
    assert made["prefetch"][0].params.idf.corpus == scope.within()
    for part in question.parts([public_id(UUID(int=0))]):
        assert pinned(part["query_filter"], scope)
    formula = json.dumps(made["query"].model_dump(mode="json"))
    variables = {name for name in ("$score[0]", "$score[1]", "last_confirmed_at") if name in formula}
    assert variables <= set(made["query"].defaults), "a variable without a default fails the whole query"


@settings(deadline=None)
@given(anything, anything, anything, anything)
def test_a_scope_is_of_texts_only(tenant, user, agent, session) -> None:
    parts = (tenant, user, agent, session)
    sound = [type(part) is str and part.isprintable() for part in parts]
    if sound[0] and sound[1] and all(ok or part is None for ok, part in zip(sound[2:], parts[2:], strict=True)):
        assert list(Scope(*parts).parts().values()) == list(parts)
    else:
        with pytest.raises(ScopeError):
            Scope(*parts)


class Chameleon(str):
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("part", ["", "x" * 257, "a\0", "a\n", "\ud800", Chameleon("acme"), ["acme"], {"any": ["a"]}])
def test_a_part_that_is_no_sound_text_is_refused(part) -> None:
    for parts in ((part, "ada"), ("acme", part), ("acme", "ada", part), ("acme", "ada", None, part)):
        with pytest.raises(ScopeError):
            Scope(*parts)


def test_a_scope_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Scope("acme", "ada").user = "bob"  # type: ignore[misc]


@settings(deadline=None)
@given(st.lists(scopes, min_size=2, max_size=2, unique=True), st.text(min_size=1), st.text(min_size=1))
def test_ids_are_of_one_scope(two, text, other_text) -> None:
    one, other = two
    assert id_of(one, "semantic", text) != id_of(other, "semantic", text)
    assert id_of(one, "semantic", text) != id_of(other, "semantic", other_text)
    assert id_of(one, "semantic", text) != id_of(one, "episodic", text)
    assert id_of(one, "semantic", text) == id_of(one, "semantic", f"  {text} ".upper().lower()) or not text.isascii()


def test_parts_that_run_together_make_different_ids() -> None:
    shifted = [
        Scope("a", "b|c"),
        Scope("a|b", "c"),
        Scope("a", "b", "c"),
        Scope("a", "b", None, "c"),
        Scope('a","b', "c"),
    ]
    for one, other in itertools.combinations(shifted, 2):
        assert id_of(one, "semantic", "x") != id_of(other, "semantic", "x")


@settings(deadline=None)
@given(
    st.text(min_size=1, max_size=200),
    st.none() | names,
    st.floats(0, 1),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_a_payload_reads_back_as_the_memory(text, slot, importance, at) -> None:
    try:
        made = Memory.new(
            Scope("a", "b"), text, NOW, slot=slot, importance=importance, event_at=at, expires_at=at
        )  # fmt: skip
    except InvalidMemoryError:
        return
    assert Memory.from_payload(made.id, json.loads(json.dumps(made.to_payload()))) == made


@pytest.mark.parametrize(
    "options",
    [
        {"text": ""}, {"text": " \n"}, {"text": "x" * 4001}, {"text": None}, {"text": "\0"}, {"slot": ""},
        {"slot": "x" * 129}, {"kind": "other"}, {"importance": 1.1}, {"importance": True},
        {"importance": float("nan")}, {"event_at": datetime(2026, 1, 1)}, {"expires_at": "2026-01-01"},  # noqa: DTZ001
        {"keywords": "tea"}, {"keywords": ["x"] * 33}, {"keywords": [""]}, {"scope": {"tenant": "a"}},
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(options) -> None:
    given = {"scope": Scope("a", "b"), "text": "Likes tea.", **options}
    with pytest.raises(InvalidMemoryError, match=r"expected|accepted"):
        Memory.new(given.pop("scope"), given.pop("text"), NOW, **given)


@pytest.mark.parametrize(
    "given",
    ["", "x", "*", None, 7, {"any": []}, ["a"], "' OR 1=1", "00000000", str(UUID(int=7)), UUID(int=7).hex,
     f"mem_{UUID(int=7)}", f"mem_{UUID(int=7).hex}\n", f"MEM_{UUID(int=7).hex}"],
)  # fmt: skip
def test_what_is_no_id_is_refused(given) -> None:
    with pytest.raises(InvalidMemoryError, match="id is"):
        sound_id(given)


@given(st.uuids())
def test_an_id_is_a_uuid_to_qdrant_and_has_a_prefix_elsewhere(uuid) -> None:
    assert re.fullmatch("mem_[0-9a-f]{32}", public_id(uuid))
    assert point_id(public_id(uuid)) == str(uuid)
    assert sound_id(public_id(str(uuid))) == public_id(uuid)


def test_no_kinds_ask_for_nothing() -> None:
    assert of_kinds(()) == []

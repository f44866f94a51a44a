"""From the REST bodies of Qdrant's writes to the operations of Qdrant Edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import qdrant_edge as edge

from memory.embedded.translate import UnsupportedError, WrongError, filter_of, needed, one_of, only, vector_of

UPDATE_MODES = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}


@dataclass(frozen=True, slots=True)
class Conditional:
    """A write of the points that a filter finds at its moment: `on` makes it, of their ids."""

    filter: edge.Filter
    on: Callable[[list[Any]], edge.UpdateOperation]


Operation = edge.UpdateOperation | Conditional


def _named_vectors(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise UnsupportedError("a vector without a name")
    return {name: vector_of(each) for name, each in body.items()}


def _upsert(body: Any) -> Operation:
    given = only(body, "upsert", "points", "update_mode")
    points = []
    for each in needed(given, "upsert", "points"):
        point = only(each, "point", "id", "vector", "payload")
        vectors = _named_vectors(needed(point, "point", "vector"))
        points.append(edge.Point(needed(point, "point", "id"), vectors, point.get("payload")))
    mode = one_of(UPDATE_MODES, given.get("update_mode", "upsert"), "update_mode")
    return edge.UpdateOperation.upsert_points(points, None, mode)


def _set_payload(body: Any) -> Operation:
    given = only(body, "set_payload", "payload", "points", "filter")
    payload = given.get("payload")
    if not isinstance(payload, dict):
        raise WrongError("set_payload: missing field `payload`")
    match given:
        case {"points": list(ids), **rest} if "filter" not in rest:
            return edge.UpdateOperation.set_payload(ids, payload)
        case {"filter": condition, **rest} if "points" not in rest:
            return Conditional(_some(condition), lambda ids: edge.UpdateOperation.set_payload(ids, payload))
    raise WrongError("set_payload: expected either `points` or `filter`")


def _delete(body: Any) -> Operation:
    match only(body, "delete", "points", "filter"):
        case {"points": list(ids), **rest} if not rest:
            return edge.UpdateOperation.delete_points(ids)
        case {"filter": condition, **rest} if not rest:
            return Conditional(_some(condition), edge.UpdateOperation.delete_points)
    raise WrongError("delete: expected either `points` or `filter`")


def _update_vectors(body: Any) -> Operation:
    points = []
    for each in needed(only(body, "update_vectors", "points"), "update_vectors", "points"):
        point = only(each, "point", "id", "vector")
        points.append(edge.PointVectors(needed(point, "point", "id"), _named_vectors(needed(point, "point", "vector"))))
    return edge.UpdateOperation.update_vectors(points)


def _some(body: Any) -> edge.Filter:
    found = filter_of(body)
    if found is None:
        raise WrongError("missing field `filter`")
    return found


UPDATES: dict[str, Callable[[Any], Operation]] = {
    "upsert": _upsert,
    "set_payload": _set_payload,
    "delete": _delete,
    "update_vectors": _update_vectors,
}


def batch(body: Any) -> list[Operation]:
    """`POST …/points/batch`: all operations are read before the first is applied."""
    found = []
    for each in needed(only(body, "batch", "operations"), "batch", "operations"):
        operation = only(each, "operation", *UPDATES)
        if len(operation) != 1:
            raise WrongError("operation: expected exactly one kind")
        [(kind, given)] = operation.items()
        found.append(UPDATES[kind](given))
    return found

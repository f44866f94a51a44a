"""From Qdrant's REST bodies to Qdrant Edge, and back. What this does not know it refuses; it never guesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qdrant_edge as edge

Body = Mapping[str, Any]

DISTANCES = {"Cosine": edge.Distance.Cosine, "Dot": edge.Distance.Dot, "Euclid": edge.Distance.Euclid}
MATCHES: dict[str, Callable[[Any], edge.MatchType]] = {
    "value": edge.MatchValue,
    "any": edge.MatchAny,
    "except": edge.MatchExcept,
}
INDEXES: dict[str, Callable[[], Any]] = {
    "datetime": edge.DatetimeIndexParams,
    "float": edge.FloatIndexParams,
    "integer": edge.IntegerIndexParams,
    "bool": edge.BoolIndexParams,
    "uuid": edge.UuidIndexParams,
}
FILTER_PARTS = ("must", "should", "must_not")


class UnsupportedError(Exception):
    """A field or a form of Qdrant's API that the embedded server does not have."""


class WrongError(Exception):
    """A body that Qdrant would refuse."""


def only(body: Any, where: str, *known: str) -> dict[str, Any]:
    """The fields of an object that are set. Raises UnsupportedError for one that is not `known`."""
    if not isinstance(body, Mapping):
        raise WrongError(f"{where}: expected an object, got {type(body).__name__}")
    given = {key: value for key, value in body.items() if value is not None}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UnsupportedError(f"{where}: {', '.join(unknown)}")
    return given


def needed(body: Mapping[str, Any], where: str, name: str) -> Any:
    """A field that must be there. Raises WrongError."""
    if name not in body:
        raise WrongError(f"{where}: missing field `{name}`")
    return body[name]


def one_of(choices: Mapping[str, Any], value: Any, where: str) -> Any:
    """What a word stands for. Raises UnsupportedError for another word."""
    if not isinstance(value, str) or value not in choices:
        raise UnsupportedError(f"{where} {value!r}")
    return choices[value]


# ---- filters


def filter_of(body: Any) -> edge.Filter | None:
    """A filter; None stays None."""
    if body is None:
        return None
    given = only(body, "filter", *FILTER_PARTS)
    must, should, must_not = (_conditions(given.get(name)) for name in FILTER_PARTS)
    return edge.Filter(must=must, should=should, must_not=must_not)


def _conditions(body: Any) -> list[Any] | None:
    if body is None:
        return None
    return [_condition(each) for each in (body if isinstance(body, list) else [body])]


def _condition(body: Any) -> Any:
    match only(body, "condition", "key", "match", "range", "has_id", "is_empty", "has_vector", *FILTER_PARTS):
        case {"has_id": list(ids)}:
            return edge.HasIdCondition(set(ids))
        case {"is_empty": target}:
            return edge.IsEmptyCondition(needed(only(target, "is_empty", "key"), "is_empty", "key"))
        case {"has_vector": str(name)}:
            return edge.HasVectorCondition(name)
        case {"key": str(key), "match": match, **rest} if not rest:
            given = only(match, "match", *MATCHES)
            if len(given) != 1:
                raise WrongError("match: expected exactly one of value, any and except")
            [(kind, value)] = given.items()
            return edge.FieldCondition(key=key, match=MATCHES[kind](value))
        case {"key": str(key), "range": bounds, **rest} if not rest:
            return edge.FieldCondition(key=key, range=_range(bounds))
        case {**parts} if parts and set(parts) <= set(FILTER_PARTS):
            return filter_of(parts)
        case other:
            raise WrongError(f"condition: {sorted(other)} is none")


def _range(body: Any) -> edge.RangeFloat | edge.RangeDateTime:
    given = only(body, "range", "gte", "gt", "lte", "lt")
    bounds = {name: given.get(name) for name in ("gte", "gt", "lte", "lt")}
    if any(isinstance(value, str) for value in given.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**bounds)


# ---- queries


def query_request(body: Any) -> edge.QueryRequest:
    """`POST …/points/query`."""
    given = only(
        body, "query request", "prefetch", "query", "using", "filter", "params", "limit", "offset", "with_payload",
        "with_vector", "score_threshold",
    )  # fmt: skip
    return edge.QueryRequest(
        limit=given.get("limit", 10),
        offset=given.get("offset"),
        query=_query(given.get("query"), given.get("using")),
        prefetches=_prefetches(given.get("prefetch")),
        filter=filter_of(given.get("filter")),
        params=_params(given.get("params")),
        with_payload=_payload_choice(given.get("with_payload", False)),
        with_vector=given.get("with_vector", False),
        score_threshold=given.get("score_threshold"),
    )


def _prefetches(body: Any) -> list[edge.Prefetch]:
    found = []
    for each in body if isinstance(body, list) else [] if body is None else [body]:
        given = only(each, "prefetch", "prefetch", "query", "using", "filter", "params", "limit", "score_threshold")
        found.append(
            edge.Prefetch(
                limit=given.get("limit", 10),
                query=_query(given.get("query"), given.get("using")),
                prefetches=_prefetches(given.get("prefetch")),
                filter=filter_of(given.get("filter")),
                params=_params(given.get("params")),
                score_threshold=given.get("score_threshold"),
            )
        )
    return found


def _query(body: Any, using: str | None) -> Any:
    if body is None:
        return None
    if isinstance(body, list) or (isinstance(body, Mapping) and "indices" in body):
        return edge.Query.Nearest(vector_of(body), using=using)
    match only(body, "query", "nearest", "formula", "defaults"):
        case {"nearest": vector, **rest} if not rest:
            return edge.Query.Nearest(vector_of(vector), using=using)
        case {"formula": formula, **rest}:
            return edge.Formula(_expression(formula), rest.get("defaults", {}))
    raise WrongError("query: expected a vector, `nearest` or `formula`")


def _params(body: Any) -> edge.SearchParams | None:
    if body is None:
        return None
    given = only(body, "params", "exact", "idf", "indexed_only", "hnsw_ef")
    idf = given.get("idf")
    if isinstance(idf, str):
        raise UnsupportedError(f"params.idf {idf!r}")
    corpus = None if idf is None else filter_of(needed(only(idf, "idf", "corpus"), "idf", "corpus"))
    return edge.SearchParams(
        hnsw_ef=given.get("hnsw_ef"),
        exact=given.get("exact", False),
        indexed_only=given.get("indexed_only", False),
        idf=None if idf is None else edge.IdfParams(corpus=corpus),
    )


def _expression(body: Any) -> edge.Expression:
    match body:
        case bool():
            raise WrongError("expression: a truth value is none")
        case int() | float():
            return edge.Expression.Constant(float(body))
        case str():
            return edge.Expression.Variable(body)
        case {**given} if len(given) == 1:
            [(kind, value)] = given.items()
            found: edge.Expression = one_of(EXPRESSIONS, kind, "expression")(value)
            return found
    raise WrongError("expression: expected a number, a variable or an object with one field")


def _division(body: Any) -> edge.Expression:
    given = only(body, "div", "left", "right", "by_zero_default")
    left, right = (_expression(needed(given, "div", side)) for side in ("left", "right"))
    return edge.Expression.Div(left, right, given.get("by_zero_default"))


def _decay(kind: edge.DecayKind) -> Callable[[Any], edge.Expression]:
    def expression(body: Any) -> edge.Expression:
        given = only(body, "decay", "x", "target", "midpoint", "scale")
        target = None if "target" not in given else _expression(given["target"])
        x = _expression(needed(given, "decay", "x"))
        return edge.Expression.Decay(kind, x, target, given.get("midpoint"), given.get("scale"))

    return expression


EXPRESSIONS: dict[str, Callable[[Any], edge.Expression]] = {
    "sum": lambda terms: edge.Expression.Sum([_expression(each) for each in terms]),
    "mult": lambda factors: edge.Expression.Mult([_expression(each) for each in factors]),
    "div": _division,
    "datetime": edge.Expression.Datetime,
    "datetime_key": edge.Expression.DatetimeKey,
    "exp_decay": _decay(edge.DecayKind.Exp),
}


# ---- other reads


def scroll_request(body: Any) -> edge.ScrollRequest:
    """`POST …/points/scroll`."""
    given = only(body, "scroll request", "offset", "limit", "filter", "with_payload", "with_vector", "order_by")
    return edge.ScrollRequest(
        offset=given.get("offset"),
        limit=given.get("limit", 10),
        filter=filter_of(given.get("filter")),
        with_payload=_payload_choice(given.get("with_payload", True)),
        with_vector=given.get("with_vector", False),
        order_by=_order(given.get("order_by")),
    )


def _order(body: Any) -> edge.OrderBy | None:
    if body is None or isinstance(body, str):
        return None if body is None else edge.OrderBy(body)
    given = only(body, "order_by", "key", "direction")
    directions = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc}
    return edge.OrderBy(
        needed(given, "order_by", "key"), one_of(directions, given.get("direction", "asc"), "direction")
    )


def count_request(body: Any) -> edge.CountRequest:
    """`POST …/points/count`."""
    given = only(body, "count request", "filter", "exact")
    return edge.CountRequest(filter=filter_of(given.get("filter")), exact=given.get("exact", True))


def facet_request(body: Any) -> edge.FacetRequest:
    """`POST …/facet`; always exact."""
    given = only(body, "facet request", "key", "limit", "filter", "exact")
    return edge.FacetRequest(
        needed(given, "facet request", "key"), given.get("limit", 10), True, filter_of(given.get("filter"))
    )


def _payload_choice(body: Any) -> Any:
    if isinstance(body, bool) or (isinstance(body, list) and all(isinstance(name, str) for name in body)):
        return body
    raise UnsupportedError("with_payload: anything but true, false and a list of fields")


def vector_of(body: Any) -> list[float] | edge.SparseVector:
    """A dense vector, or a sparse one."""
    if isinstance(body, Mapping):
        given = only(body, "sparse vector", "indices", "values")
        return edge.SparseVector(needed(given, "vector", "indices"), needed(given, "vector", "values"))
    if not isinstance(body, list) or not all(isinstance(each, int | float) for each in body):
        raise UnsupportedError("a vector that is neither a list of numbers nor sparse")
    return body


# ---- collections


def dense_params(body: Any) -> edge.EdgeVectorParams:
    """The parameters of a dense vector."""
    given = only(body, "vector", "size", "distance")
    distance = one_of(DISTANCES, needed(given, "vector", "distance"), "distance")
    return edge.EdgeVectorParams(size=needed(given, "vector", "size"), distance=distance)


def sparse_params(body: Any) -> edge.EdgeSparseVectorParams:
    """The parameters of a sparse vector."""
    given = only(body, "sparse vector", "modifier")
    modifier = one_of({"idf": edge.Modifier.Idf, "none": None}, given.get("modifier", "none"), "modifier")
    return edge.EdgeSparseVectorParams(modifier=modifier)


def index_params(body: Any) -> Any:
    """The schema of a payload index."""
    given: dict[str, Any] = {"type": body} if isinstance(body, str) else only(body, "field_schema", "type", "is_tenant")
    kind = needed(given, "field_schema", "type")
    if kind == "keyword":
        return edge.KeywordIndexParams(is_tenant=given.get("is_tenant"))
    return one_of(INDEXES, kind, "field_schema")()


# ---- answers


def record(found: edge.Record | edge.ScoredPoint) -> dict[str, Any]:
    """A point as the API shows it."""
    shown: dict[str, Any] = {"id": found.id, "payload": found.payload}
    if isinstance(found, edge.ScoredPoint):
        shown |= {"version": found.version, "score": found.score}
    if isinstance(found.vector, dict):
        shown["vector"] = {name: _shown(vector) for name, vector in found.vector.items()}
    return shown


def _shown(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return vector

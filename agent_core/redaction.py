"""Takes secrets out of what is kept and shown: those that the settings name, and whatever has the shape of a token.

Each is replaced by `[redacted:KIND]`, once: what is redacted already stays as it is. Time is linear in the text. A text
that is JSON stays JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast
from urllib.parse import quote

from agent_core.entries import Entry, ModelCompleted, entry_to_json
from agent_core.types import Json

T = TypeVar("T")
SHORTEST = 8
"""Characters. A shorter secret is not looked for: it would be found in words that are none."""
AMOUNT = re.compile(r"[-+0-9.eE]+")
"""A secret that may be a number is not looked for: it would be found in ids and amounts, and break their JSON."""
BEGINNING = "[redacted:"
MARK = re.compile(r"(\[redacted:[a-z_]+\])")
LETTERS = "[A-Za-z0-9]"
HOST = r"\s/?#\"'<>\\"
"""What does not stand in a URL between its scheme and its path."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What tokens of a kind look like. A text without any of the `signs` has none, which is quickly seen."""

    kind: str
    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    around: str = "{}"
    """What the mark is put into."""

    def hide(self, text: str) -> str:
        """The text without such tokens."""
        if not any(sign in text for sign in self.signs):
            return text
        return _outside_marks(text, lambda piece: self.pattern.sub(self.around.format(mark(self.kind)), piece))


def mark(kind: str) -> str:
    """What stands in place of a secret."""
    return f"{BEGINNING}{kind}]"


def _token(prefix: str, rest: str, letters: str = LETTERS) -> re.Pattern[str]:
    """A pattern of tokens that do not begin amid a word: behind no letter but one of an escape of JSON or a terminal's.

    The prefix, of a fixed length, is looked for first and what is before it after that, which is many times faster.
    """
    before = "|".join(
        [rf"(?<!{letters}{prefix})", *(f"(?<={e}{prefix})" for e in (r"\\[nrt]", r"\x1b\[\dm", r"\x1b\[\d\dm"))]
    )
    return re.compile(f"{prefix}(?:{before}){rest}")


SHAPES = (
    # The key's lines come first: the dashes around them are letters of other shapes. A key that was cut off has no end.
    Shape(
        "private_key",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[A-Za-z0-9+/=\s]|\\[nrt]|(?:Proc-Type|DEK-Info|Version|Comment): [^\n\"\\]{0,100})*+"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
        ),
    ),
    Shape("anthropic_key", ("sk-ant-",), _token("sk-ant-", "[A-Za-z0-9_-]{16,}+")),
    Shape("nightshift_key", ("ns_",), _token("ns_", "[A-Za-z0-9_-]{43,}+")),
    Shape("webhook_secret", ("whsec_",), _token("whsec_", "[A-Za-z0-9+/=_-]{24,}+")),
    Shape("github_token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _token("gh[pousr]_", "[A-Za-z0-9]{36,}+")),
    Shape("github_token", ("github_pat_",), _token("github_pat_", "[A-Za-z0-9_]{22,}+")),
    Shape("slack_token", ("xox",), _token("xox[abeoprs]-", "[A-Za-z0-9-]{10,}+")),
    Shape("aws_key", ("AKIA", "ASIA"), _token("A[KS]IA", "[A-Z0-9]{16}(?![A-Za-z0-9])")),
    Shape("google_key", ("AIza",), _token("AIza", "[A-Za-z0-9_-]{35,}+")),
    # A JSON Web Token begins with the base64 of `{"`. None begins amid a run of its letters: many may stand there that
    # begin so, and each would be read to the end of the run.
    Shape(
        "jwt",
        ("eyJ",),
        _token("eyJ", r"[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+", letters="[A-Za-z0-9_-]"),
    ),
    Shape(
        "bearer",
        ("Bearer ", "bearer ", "BEARER "),
        _token("(?:Bearer|bearer|BEARER) ", "(?=[A-Za-z._~+/=-]*+[0-9])[A-Za-z0-9._~+/=-]{16,}+"),
        "Bearer {}",
    ),
    Shape("userinfo", ("://",), re.compile(rf"://(?:[^{HOST}:@]*+:[^{HOST}]*|[^{HOST}:@]{{16,}})@"), "://{}@"),
    Shape(
        "password",
        ("=",),
        re.compile(
            r"([?&](?:password|passwd|pwd|secret|client_secret|token|access_token|api_key|apikey)=)[^\s&#\"'<>\\]++",
            re.IGNORECASE,
        ),
        r"\1{}",
    ),
)


class Redactor:
    """Redacts `secrets` (of at least 8 characters, and not numbers) and every token of a known shape."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if _is_findable(secret) for form in _forms(secret)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))  # of two that overlap, the longer one
        self._known = re.compile("|".join(map(re.escape, self._forms)))

    def text(self, text: str) -> str:
        """The text without secrets."""
        if any(form in text for form in self._forms):
            text = _outside_marks(text, lambda piece: self._known.sub(mark("secret"), piece))
        for shape in SHAPES:
            text = shape.hide(text)
        return text

    def json(self, value: T) -> T:
        """JSON data without secrets in its texts and keys. Keys that become the same are told apart by a number."""
        return cast(T, self._any(value))

    def entry(self, entry: Entry) -> Entry:
        """The entry as it may be kept; the very same one when it holds no secret.

        Of a reply, what its author has signed or encrypted is left alone: the provider takes it back as it was only.
        """
        data = entry_to_json(entry)
        reply = {"content": [self._block(b) for b in data.pop("content")]} if isinstance(entry, ModelCompleted) else {}
        fresh = {**self.json(data), **reply}
        return entry if fresh == entry_to_json(entry) else replace(entry, **fresh)

    def _block(self, block: Json) -> Json:
        own = {"text": ("text",), "tool_use": ("input",)}.get(str(block.get("type")), ())
        return {**block, **{name: self.json(block[name]) for name in own if name in block}}

    def _any(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case dict():
                found: dict[Any, Any] = {}
                for key, item in value.items():
                    found[self._key(key, found)] = self._any(item)
                return found
            case list() | tuple():
                return [self._any(item) for item in value]
            case _:
                return value

    def _key(self, key: Any, taken: dict[Any, Any]) -> Any:
        name = self.text(key) if isinstance(key, str) else key
        fresh, number = name, 2
        while fresh in taken:
            fresh, number = f"{name} {number}", number + 1
        return fresh


def _outside_marks(text: str, hide: Callable[[str], str]) -> str:
    """The text with `hide` done to the pieces between the marks in it."""
    if BEGINNING not in text:
        return hide(text)
    return "".join(piece if n % 2 else hide(piece) for n, piece in enumerate(MARK.split(text)))


def _is_findable(secret: str) -> bool:
    return len(secret) >= SHORTEST and AMOUNT.fullmatch(secret) is None and BEGINNING not in secret


def _forms(secret: str) -> Iterable[str]:
    """A secret as it is, and as it stands in JSON and in a URL."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield quote(secret, safe="")

"""YAML that has one meaning: what readers of it disagree on, and what few people know, is refused.

Allowed are mappings, lists, numbers, texts, true, false and null, each written where it counts.
Anchors, aliases, merge keys, tags, directives and several documents in one file are not; nor is a
word that YAML 1.1 and YAML 1.2 understand differently. Everything is refused before the file is
turned into objects, so that none takes long, however it is nested.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

LARGEST = 200_000
"""Bytes of a file, unless its caller says otherwise."""

LONGEST = 1000
"""Characters of one word."""

DEEPEST = 20
"""Levels of mappings and lists."""


class ParameterError(ValueError):
    """A file of knobs, or a knob, is not what it should be; one sentence."""


_AMBIGUOUS = re.compile(
    r"[-+]?0[0-9_]+|[-+]?0[obx][0-9a-fA-F_]+|[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?"
    r"|[-+]?[0-9.][0-9_.]*_[0-9_.]*([eE][-+]?[0-9]+)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"
    r"|=|<<"
    r"|(?i:yes|no|on|off|y|n)"
)
"""Plain words that readers of YAML 1.1 and of YAML 1.2 interpret differently."""

_FORBIDDEN = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
"""Characters that no line of YAML may hold: controls, and line breaks that few editors show."""


class _Core(yaml.CSafeLoader):
    """The core schema of YAML 1.2: the words that are no text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, _words, _beginnings in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _pattern = re.compile(rf"^(?:{_words})$")
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, _beginnings)


def read_yaml(path: Path, largest: int = LARGEST) -> Any:
    """The content of a YAML 1.2 file, as DVC reads it.

    Raises:
        ParameterError: the file cannot be read, is larger than ``largest`` bytes, is no YAML, or
            uses what this module refuses; the sentence names the line.
    """
    text = _text(path, largest)
    try:
        _refuse(path.name, yaml.parse(text, Loader=_Core))
        found = yaml.load(text, Loader=_Core)
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise _broken(path.name, text, None if mark is None else mark.line, problem) from None
    _keys(path.name, found, ())
    return found


def shown(value: Any) -> str:
    """A value as Python writes it, on one line and shortened where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _text(path: Path, largest: int) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe would never answer
            raise ParameterError(f"{path} cannot be read: it is no file, and must be one of YAML.")
        with path.open("rb") as stream:
            raw = stream.read(largest + 1)
    except OSError as error:
        raise ParameterError(
            f"{path} cannot be read ({error.strerror}): it must be a file of YAML."
        ) from None
    if len(raw) > largest:
        raise ParameterError(
            f"{path.name} has more than {largest} bytes: it must be a file of YAML no larger than "
            "that."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ParameterError(
            f"{path.name}, line {line}, is not a text in UTF-8: save the file in that encoding."
        ) from None
    found = _FORBIDDEN.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise ParameterError(
            f"{path.name}, line {line}, holds the character U+{ord(found[0]):04X}, which no YAML "
            "may hold: remove it."
        )
    return text


def _refuse(name: str, events: Iterator[yaml.Event]) -> None:
    """Go through the events of a parser and raise for the first that is not allowed."""
    documents = 0
    open_: list[_Open] = []
    for event in events:
        line = event.start_mark.line + 1
        where = f"{name}, line {line},"
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1 or event.version or event.tags:
                raise ParameterError(
                    f"{where} begins a second document or gives a directive to readers of YAML: "
                    "the file must hold one mapping and neither of these."
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            open_.pop()
        elif isinstance(event, yaml.NodeEvent):
            _node(where, event)
            if open_:
                open_[-1].next(where, line, event)
            if isinstance(event, yaml.CollectionStartEvent):
                if len(open_) == DEEPEST:
                    raise ParameterError(f"{where} is nested more than {DEEPEST} levels deep.")
                open_.append(_Open(isinstance(event, yaml.MappingStartEvent)))


class _Open:
    """A mapping or a list whose end has not come yet, and the lines of a mapping's keys."""

    def __init__(self, mapping: bool) -> None:
        self.keys: dict[str, int] = {}
        self._mapping = self._key_comes = mapping

    def next(self, where: str, line: int, event: yaml.NodeEvent) -> None:
        """Take the next entry; a mapping's are keys and values in turn."""
        if self._key_comes:
            if not isinstance(event, yaml.ScalarEvent):
                raise ParameterError(f"{where} has a list or a mapping as a key: a key is a name.")
            if event.value in self.keys:
                raise ParameterError(
                    f"{where} has the key {shown(event.value)} again, which stands in line "
                    f"{self.keys[event.value]} already: remove one of the two."
                )
            self.keys[event.value] = line
        self._key_comes = self._mapping and not self._key_comes


def _node(where: str, event: yaml.NodeEvent) -> None:
    """Raise for an anchor, an alias, a tag, or a word that is too long or has two meanings."""
    if event.anchor:
        raise ParameterError(
            f"{where} has the anchor or alias {shown(event.anchor)}: write each value where it "
            "counts."
        )
    if isinstance(event, yaml.AliasEvent):
        return
    if event.tag:
        raise ParameterError(
            f"{where} has the tag {shown(event.tag)}: write a number, a text in quotes, true, "
            "false or null without one."
        )
    if isinstance(event, yaml.ScalarEvent):
        if len(event.value) > LONGEST:
            raise ParameterError(
                f"{where} has a value of {len(event.value)} characters, {shown(event.value)}: it "
                f"must have at most {LONGEST}."
            )
        if event.implicit[0] and _AMBIGUOUS.fullmatch(event.value):
            raise ParameterError(
                f"{where} has the word {event.value}, which means different things to different "
                "readers of YAML: write a decimal number, or quote a text, or say true or false."
            )


def _keys(name: str, value: Any, path: tuple[str, ...]) -> None:
    """Raise for a key that is no text: a number, true, null."""
    if isinstance(value, list):
        for item in value:
            _keys(name, item, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                below = f" below {'.'.join(path)}" if path else ""
                raise ParameterError(
                    f"{name}: the key {key!r}{below} is no name: quote it or write another."
                )
            _keys(name, item, (*path, key))


def _broken(name: str, text: str, line: int | None, problem: Any) -> ParameterError:
    where = ""
    if line is not None:
        lines = text.splitlines()
        line = min(line, max(0, len(lines) - 1))
        where = f", line {line + 1}, {shown(lines[line]) if lines else 'which is empty'},"
    reason = " ".join(str(problem).split()).rstrip(".")
    return ParameterError(
        f"{name}{where} is not valid YAML ({reason}): a knob is a line `name: value`, indented by "
        "spaces."
    )

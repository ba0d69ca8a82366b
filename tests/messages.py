"""What a message must name, whatever its sentence: the wording stays free to improve."""

from collections.abc import Iterable


def missing(message: str, *parts: object) -> list[str]:
    """The parts (a path, a value, an option to type) that a message lacks; rich may have wrapped it, so white space counts alike."""
    text = " ".join(message.split())
    return [part for part in map(str, parts) if " ".join(part.split()) not in text]


def mistaken(messages: Iterable[str], expected: Iterable[tuple[str, ...]]) -> list[str]:
    """The messages that do not begin with their place and name its parts, as (place, part, ...) says; all where the counts differ."""
    messages, expected = list(messages), list(expected)
    if len(messages) != len(expected):
        return messages
    pairs = zip(messages, expected, strict=True)
    return [text for text, (place, *parts) in pairs if not text.startswith(place) or missing(text[len(place) :], *parts)]

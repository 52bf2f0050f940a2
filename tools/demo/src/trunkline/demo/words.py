"""Words for people: sentences cut in two, JSON in brief. Pure."""

from collections.abc import Mapping

import msgspec


def divided(text: str, heard_ms: float, total_ms: float) -> tuple[str, str]:
    """Divide `text` between two words into what was heard and what was not, as far as time tells."""
    if heard_ms >= total_ms:
        return text, ""
    at = round(len(text) * heard_ms / total_ms)
    space = text.rfind(" ", 0, at + 1)
    return (text[:space], text[space + 1 :]) if space > 0 else ("", text)


def parsed(text: str) -> object:
    """Return what `text` says, the text itself if it is no JSON, None if there is none."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text or None


def brief(value: object) -> str:
    """Return JSON in few words: the values of an object, without what is empty."""
    match value:
        case Mapping():
            words = [
                f"{name}" if part is True else f"not {name}" if part is False else brief(part)
                for name, part in value.items()
                if part not in (None, "", [], {})
            ]
            return ", ".join(words)
        case list():
            return ", ".join(brief(part) for part in value)
        case str() | int() | float():
            return str(value)
        case _:
            return msgspec.json.encode(value).decode()

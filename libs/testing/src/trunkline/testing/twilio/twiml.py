"""What a webhook answers: the verbs a call with a media stream may run through.

Source: https://www.twilio.com/docs/voice/twiml and its pages on connect, stream, redirect, say, pause and hangup.
"""

import contextlib
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit
from xml.etree import ElementTree as ET

from trunkline.testing.errors import CallFailed

_PARAMETER_LIMIT: Final = 500
_SCHEMES: Final = {"http": "ws", "https": "wss"}
_PAUSE_S: Final = 1.0


class StreamVerb(NamedTuple):
    """`<Connect><Stream>`: where Twilio connects to and what it passes on."""

    url: str
    parameters: dict[str, str]
    query_dropped: bool
    """Whether the URL had a query string: Twilio connects without it."""


class RedirectVerb(NamedTuple):
    """`<Redirect>`, or the `action` of a verb: where the next document is."""

    url: str
    method: str
    """``GET`` or ``POST``."""


class ConnectVerb(NamedTuple):
    """`<Connect>` with a `<Stream>` in it; the document waits until the stream is over."""

    stream: StreamVerb
    action: RedirectVerb | None
    """What is asked for the next document when the stream is over; without it the next verb runs."""


class SayVerb(NamedTuple):
    """`<Say>`: words that Twilio's own voice speaks."""

    text: str


class PauseVerb(NamedTuple):
    """`<Pause>`: silence."""

    length_s: float


class HangupVerb(NamedTuple):
    """`<Hangup>`: the call is over."""


class OtherVerb(NamedTuple):
    """Something that Twilio may know and this emulator passes over."""

    tag: str


Verb = ConnectVerb | RedirectVerb | SayVerb | PauseVerb | HangupVerb | OtherVerb


class Twiml(NamedTuple):
    """A document: its first stream, if it has one, and the names of all verbs in order."""

    stream: StreamVerb | None
    verbs: tuple[str, ...]


def parse_twiml(text: str, base_url: str) -> Twiml:
    """Read the TwiML a webhook at `base_url` answered, as far as its first stream needs it.

    Raises:
        CallFailed: it is no TwiML, or its stream is not one Twilio would open.
    """
    stream = next((verb.stream for verb in parse_verbs(text, base_url) if isinstance(verb, ConnectVerb)), None)
    return Twiml(stream, tuple(verb.tag for verb in _root(text)))


def parse_verbs(text: str, base_url: str) -> tuple[Verb, ...]:
    """Read all the verbs of the TwiML a webhook at `base_url` answered.

    Raises:
        CallFailed: it is no TwiML, or a verb of it could not be run.
    """
    return tuple(_verb(element, base_url) for element in _root(text))


def _root(text: str) -> ET.Element:
    try:
        root = ET.fromstring(text)  # noqa: S314 - expat limits entity expansion, and the far side is our own deployment
    except ET.ParseError as error:
        raise CallFailed(f"the webhook did not answer TwiML ({error}): {text[:200]!r}") from error
    if root.tag != "Response":
        raise CallFailed(f"TwiML begins with <Response>, not <{root.tag}>")
    return root


def _verb(element: ET.Element, base_url: str) -> Verb:
    words = " ".join("".join(element.itertext()).split())
    match element.tag:
        case "Connect" if (stream := element.find("Stream")) is not None:
            action = element.get("action")
            next_document = None if action is None else _redirect(action, element, base_url)
            return ConnectVerb(_stream(stream, base_url), next_document)
        case "Redirect":
            return _redirect(words, element, base_url)
        case "Say":
            return SayVerb(words)
        case "Pause":
            length_s = _PAUSE_S
            with contextlib.suppress(ValueError):
                length_s = max(0.0, float(element.get("length", _PAUSE_S)))
            return PauseVerb(length_s)
        case "Hangup":
            return HangupVerb()
    return OtherVerb(element.tag)


def _redirect(url: str, element: ET.Element, base_url: str) -> RedirectVerb:
    target = urljoin(base_url, url)
    method = element.get("method", "POST").upper()
    if urlsplit(target).scheme not in ("http", "https") or method not in ("GET", "POST"):
        raise CallFailed(f"<{element.tag}> leads to {method} {url!r}: Twilio asks http and https URLs by GET or POST")
    return RedirectVerb(target, method)


def _stream(element: ET.Element, base_url: str) -> StreamVerb:
    url = element.get("url", "").strip()
    if not url:
        raise CallFailed("<Stream> has no url")
    parts = urlsplit(urljoin(base_url, url))
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss"):
        raise CallFailed(f"<Stream url> must be a wss:// URL, not {url!r}")
    parameters = dict(_parameters(element))
    return StreamVerb(urlunsplit((scheme, parts.netloc, parts.path, "", "")), parameters, bool(parts.query))


def _parameters(element: ET.Element) -> Iterator[tuple[str, str]]:
    for parameter in element.findall("Parameter"):
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if len(name) + len(value) >= _PARAMETER_LIMIT:
            raise CallFailed(f"<Parameter name={name!r}> is longer than Twilio's {_PARAMETER_LIMIT} characters")
        yield name, value

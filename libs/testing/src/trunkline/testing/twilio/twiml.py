"""What the voice webhook answers, as far as a media stream needs it. Source: https://www.twilio.com/docs/voice/twiml."""

from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit
from xml.etree import ElementTree as ET

from trunkline.testing.errors import CallFailed

_PARAMETER_LIMIT: Final = 500
_SCHEMES: Final = {"http": "ws", "https": "wss"}


class StreamVerb(NamedTuple):
    """`<Connect><Stream>`: where Twilio connects to and what it passes on."""

    url: str
    parameters: dict[str, str]
    query_dropped: bool
    """Whether the URL had a query string: Twilio connects without it."""


class Twiml(NamedTuple):
    """A document: its first stream, if it has one, and the names of all verbs in order."""

    stream: StreamVerb | None
    verbs: tuple[str, ...]


def parse_twiml(text: str, base_url: str) -> Twiml:
    """Read the TwiML a webhook at `base_url` answered.

    Raises:
        CallFailed: it is no TwiML, or its stream is not one Twilio would open.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - expat limits entity expansion, and the far side is our own deployment
    except ET.ParseError as error:
        raise CallFailed(f"the webhook did not answer TwiML ({error}): {text[:200]!r}") from error
    if root.tag != "Response":
        raise CallFailed(f"TwiML begins with <Response>, not <{root.tag}>")
    element = root.find("Connect/Stream")
    return Twiml(None if element is None else _stream(element, base_url), tuple(verb.tag for verb in root))


def _stream(element: ET.Element, base_url: str) -> StreamVerb:
    url = element.get("url", "").strip()
    if not url:
        raise CallFailed("<Stream> has no url")
    parts = urlsplit(urljoin(base_url, url))
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss"):
        raise CallFailed(f"<Stream url> must be a wss:// URL, not {url!r}")
    parameters = {}
    for parameter in element.findall("Parameter"):
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if len(name) + len(value) >= _PARAMETER_LIMIT:
            raise CallFailed(f"<Parameter name={name!r}> is longer than Twilio's {_PARAMETER_LIMIT} characters")
        parameters[name] = value
    return StreamVerb(urlunsplit((scheme, parts.netloc, parts.path, "", "")), parameters, bool(parts.query))

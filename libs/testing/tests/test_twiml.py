import pytest

from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio import StreamVerb, parse_twiml

pytestmark = pytest.mark.unit

BASE = "https://edge.example/twilio/voice-hook?agent=sophie"


def test_a_stream_is_found_with_its_parameters() -> None:
    twiml = parse_twiml(
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="wss://edge.example/stream">'
        '<Parameter name="agent" value="sophie"/><Parameter name="a&amp;b" value="&lt;"/></Stream></Connect>'
        "<Say>Sorry</Say></Response>",
        BASE,
    )

    assert twiml.stream == StreamVerb("wss://edge.example/stream", {"agent": "sophie", "a&b": "<"}, query_dropped=False)
    assert twiml.verbs == ("Connect", "Say")


def test_a_relative_url_is_on_the_host_of_the_webhook() -> None:
    twiml = parse_twiml('<Response><Connect><Stream url="/twilio/media-stream"/></Connect></Response>', BASE)

    assert twiml.stream is not None
    assert twiml.stream.url == "wss://edge.example/twilio/media-stream"


def test_the_query_string_is_dropped_as_twilio_drops_it() -> None:
    twiml = parse_twiml('<Response><Connect><Stream url="wss://edge.example/s?agent=x"/></Connect></Response>', BASE)

    assert twiml.stream == StreamVerb("wss://edge.example/s", {}, query_dropped=True)


def test_a_document_without_a_stream_names_its_verbs() -> None:
    assert parse_twiml("<Response><Say>busy</Say><Hangup/></Response>", BASE) == (None, ("Say", "Hangup"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html>", "did not answer TwiML"),
        ("<html></html>", "not <html>"),
        ("<Response><Connect><Stream/></Connect></Response>", "has no url"),
        ('<Response><Connect><Stream url="ftp://x/y"/></Connect></Response>', "must be a wss"),
        (
            '<Response><Connect><Stream url="wss://x"><Parameter name="n" value="'
            + 500 * "v"
            + '"/></Stream></Connect></Response>',
            "longer than Twilio's 500",
        ),
    ],
)
def test_what_twilio_would_not_open_is_refused(text: str, why: str) -> None:
    with pytest.raises(CallFailed, match=why):
        parse_twiml(text, BASE)

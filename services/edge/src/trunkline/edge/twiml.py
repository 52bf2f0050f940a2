"""What Twilio is told to do with a call, as TwiML. Source: https://www.twilio.com/docs/voice/twiml.

``<Connect>`` holds the document for as long as its stream lasts. When that has ended without the call having ended,
Twilio goes on to the next verb, and that asks us what is to become of the caller.
"""

from collections.abc import Mapping
from typing import Final

from twilio.twiml.voice_response import Connect, Hangup, Redirect, Say, VoiceResponse

from trunkline.edge.call import AGAIN, RETURNS

MEDIA_TYPE: Final = "application/xml"


def connect(socket_url: str, over_url: str, agent: str, *, outbound: bool, again: bool = False) -> str:
    """Connect the call to our socket; once the stream is over, ask `over_url`.

    Args:
        socket_url: where the stream goes; without a query, Twilio connects without it.
        over_url: what to ask afterwards.
        agent: who answers.
        outbound: whether we placed the call.
        again: whether the caller had a line before.
    """
    parameters = {"agent": agent, RETURNS: "1"}
    if outbound:
        parameters["direction"] = "outbound"
    if again:
        parameters[AGAIN] = "1"
    verb = Connect()
    stream = verb.stream(url=socket_url)
    for name, value in parameters.items():
        stream.parameter(name=name, value=value)
    return _document(verb, Redirect(over_url, method="POST"))


def hang_up(last_words: str = "") -> str:
    """Say `last_words` in Twilio's own voice, if there are any, and hang up."""
    return _document(*([Say(last_words)] if last_words else []), Hangup())


def is_outbound(form: Mapping[str, object]) -> bool:
    """Whether Twilio says that we placed the call."""
    return str(form.get("Direction", "")).startswith("outbound")


def _document(*verbs: Connect | Hangup | Redirect | Say) -> str:
    answer = VoiceResponse()
    for verb in verbs:
        answer.append(verb)
    return str(answer)

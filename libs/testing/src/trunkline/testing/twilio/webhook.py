"""Asking the application what to do: a signed request, an answer in TwiML.

How Twilio asks: https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides. Where nothing else is
configured it waits 5 s for the connection and 15 s for the answer, and tries once more if *the connection* did not come
about ("retry count", 1 by default). The page names no pause before that, so there is none here. Anything else that goes
wrong is not tried again.
"""

import functools
import ssl
from typing import Final, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
from twilio.request_validator import RequestValidator

from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio.dial import Dial
from trunkline.testing.twilio.twiml import RedirectVerb, Verb, parse_verbs

NO_ANSWER: Final = "11200"
BAD_TWIML: Final = "12100"
_TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
_TRIES: Final = 2


class Unanswered(CallFailed):
    """The webhook answered nothing that a call could follow.

    Attributes:
        code: what Twilio's debugger would show for it.
    """

    def __init__(self, text: str, status: int | None = None, code: str = NO_ANSWER) -> None:
        super().__init__(text, status)
        self.code = code


class Document(NamedTuple):
    """What a webhook answered."""

    status: int
    verbs: tuple[Verb, ...]


async def ask(dial: Dial, webhook: RedirectVerb, call_status: Literal["ringing", "in-progress"], what: str) -> Document:
    """Request TwiML.

    Args:
        dial: the call it is about.
        webhook: whom to ask.
        call_status: what Twilio says of the call.
        what: how to name the webhook in what is raised.

    Raises:
        Unanswered: there was no answer, one that tells of failure, or one that is no TwiML.
    """
    form = {
        "AccountSid": dial.account_sid,
        "ApiVersion": "2010-04-01",
        "CallSid": dial.call_sid,
        "CallStatus": call_status,
        "Called": dial.called,
        "Caller": dial.caller,
        "Direction": "inbound",
        "From": dial.caller,
        "To": dial.called,
    }
    url = webhook.url
    if webhook.method == "GET":
        parts = urlsplit(url)
        url = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(form))))))
        form = {}
    headers = {"User-Agent": "TwilioProxy/1.1"}
    if dial.token:
        headers["X-Twilio-Signature"] = signature(dial.token, url, form)
    try:
        answer = await _request(webhook.method, url, form, headers)
    except httpx.HTTPError as error:
        raise Unanswered(f"no answer from the {what} {url}: {told(error)}") from error
    except httpx.InvalidURL as error:
        raise Unanswered(f"{url!r} is no URL: {error}") from error
    if not answer.is_success:
        said = " ".join(answer.text.split())[:200]
        status = answer.status_code
        raise Unanswered(f"the {what} {url} answered {status} {answer.reason_phrase}: {said}", status)
    try:
        return Document(answer.status_code, parse_verbs(answer.text, webhook.url))
    except CallFailed as error:
        raise Unanswered(str(error), code=BAD_TWIML) from error


async def _request(method: str, url: str, form: dict[str, str], headers: dict[str, str]) -> httpx.Response:
    tries = _TRIES
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=not is_local(url), verify=_tls()) as client:
        while True:
            try:
                return await client.request(method, url, data=form or None, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                tries -= 1
                if not tries:
                    raise


def signature(token: str, url: str, form: dict[str, str]) -> str:
    """Return the `X-Twilio-Signature` of a request."""
    return str(RequestValidator(token).compute_signature(url, form))


def is_local(url: str) -> bool:
    """Whether no proxy can help to get there."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def told(error: Exception) -> str:
    """Return what an error says, or its name when it says nothing."""
    return str(error) or type(error).__name__


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return one context for all calls: making one takes tens of milliseconds, in which no frame would leave."""
    return httpx.create_ssl_context()

"""Placing calls through Twilio's REST API, with its official client."""

from typing import Any

import aiohttp
import msgspec
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from trunkline.edge.errors import NotPlaced
from trunkline.edge.settings import Setup
from trunkline.edge.signature import PublicUrl

_TIMEOUT_S = 10.0


class Placed(msgspec.Struct, frozen=True):
    """A call Twilio has accepted; it may still queue it."""

    call_sid: str
    status: str


class Dialler:
    """One account's outgoing calls. The client is made at the first one."""

    def __init__(self, setup: Setup, public: PublicUrl) -> None:
        self._setup = setup
        self._public = public
        self._client: Any = None

    @property
    def missing(self) -> list[str]:
        """Names of the variables that have to be set before a call can be placed."""
        needed = {
            "TRUNKLINE_TWILIO_ACCOUNT_SID": self._setup.twilio.account_sid,
            "TRUNKLINE_TWILIO_AUTH_TOKEN": self._setup.twilio.auth_token,
            "TRUNKLINE_TWILIO_FROM": self._setup.twilio_from,
            "TRUNKLINE_EDGE_PUBLIC_URL": self._setup.edge.public_url,
            "TRUNKLINE_EDGE_API_TOKEN": self._setup.edge.api_token,
        }
        return [name for name, value in needed.items() if not value]

    async def place(self, to: str, agent: str) -> Placed:
        """Have Twilio call `to` and ask our webhook what to do once it is answered. Nothing may be `missing`.

        Raises:
            NotPlaced: Twilio refused, or could not be reached.
        """
        if self._client is None:
            self._client = self._connect()
        url = self._public.http("/twilio/voice-hook", f"agent={agent}")
        try:
            placed = await self._client.calls.create_async(to=to, from_=self._setup.twilio_from, url=url)
        except TwilioRestException as error:
            raise NotPlaced(f"Twilio refused the call: {error.status} {error.code}", str(error.msg)) from error
        except (TwilioException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotPlaced(f"Twilio could not be asked: {type(error).__name__}", str(error)) from error
        return Placed(str(placed.sid), str(placed.status))

    async def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            await self._client.http_client.close()

    def _connect(self) -> Any:
        twilio = self._setup.twilio
        client = Client(twilio.account_sid, twilio.auth_token, http_client=AsyncTwilioHttpClient(timeout=_TIMEOUT_S))
        # The SDK has no argument for another address; this attribute is what its requests are built from.
        client.api.base_url = twilio.api_url
        return client

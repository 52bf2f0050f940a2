"""What a process asks of JetStream again and again: to store a message, and for the next one that is stored.

As ``JetStreamContext.publish`` and ``get_msg`` of nats-py, but the answer is read in place and waited for with one
future: a third of the time. https://docs.nats.io/nats-concepts/jetstream/headers,
https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec
import nats.errors
import nats.js.errors

from trunkline.bus.direct import DirectClient


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A message as it is stored. `hdrs` are its headers, as on the wire."""

    subject: str
    seq: int
    data: bytes = b""
    hdrs: bytes = b""

    @property
    def header_names(self) -> set[str]:
        """Return the names of its headers."""
        _version, *lines = self.hdrs.split(b"\r\n")
        return {line.partition(b":")[0].decode(errors="replace") for line in lines}


class _Answer(msgspec.Struct):
    seq: int = 0
    message: Kept | None = None
    error: dict[str, Any] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class Storing:
    """Publishes over `client`, for all who store something in this process."""

    def __init__(self, client: DirectClient) -> None:
        self._client = client
        self._inbox = ""
        self._numbers = count()
        self._awaited: dict[str, asyncio.Future[bytes]] = {}

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """Publish and return the sequence number under which the message is stored.

        Raises:
            nats.js.errors.NoStreamResponseError: no stream takes `subject`, or JetStream is away.
            nats.js.errors.APIError: the stream refused it.
            nats.errors.TimeoutError: no answer within `timeout_s`; it may be stored.
            nats.errors.Error: it could not be sent.
        """
        return (await self._ask(subject, data, headers, timeout_s)).seq

    async def next_of(self, stream: str, seq: int, subject: str, timeout_s: float) -> Kept | None:
        """Return the first message on `subject`, which may have wildcards, from number `seq` on; None after the last.

        Raises:
            nats.js.errors.APIError: the stream is not there, or JetStream is away.
            nats.errors.Error: as for `publish`.
        """
        request = msgspec.json.encode({"seq": seq, "next_by_subj": subject})
        try:
            return (await self._ask(f"$JS.API.STREAM.MSG.GET.{stream}", request, None, timeout_s)).message
        except nats.js.errors.NotFoundError:
            return None

    async def _ask(self, subject: str, data: bytes, headers: Mapping[str, str] | None, timeout_s: float) -> _Answer:
        if not self._inbox:
            inbox = self._client.new_inbox()
            await self._client.take(f"{inbox}.*", self._on_answer)
            self._inbox = inbox
        number = str(next(self._numbers))
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._awaited[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                given = dict(headers) if headers else None
                await self._client.publish(subject, data, reply=f"{self._inbox}.{number}", headers=given)
                word = await answer
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        finally:
            del self._awaited[number]
        if not word:  # nobody listens, which is told in a header alone
            raise nats.js.errors.NoStreamResponseError
        found = _ANSWER.decode(word)
        if found.error is not None:
            raise nats.js.errors.APIError.from_error(found.error)
        return found

    def _on_answer(self, subject: str, data: bytes) -> None:
        answer = self._awaited.get(subject[subject.rfind(".") + 1 :])
        if answer is not None and not answer.done():
            answer.set_result(data)

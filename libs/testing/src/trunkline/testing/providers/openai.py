"""OpenAI's side of thinking: what `openai-python` 3.x says to chat completions and Responses, and reads from them.

A token is four characters of text, whatever they are; the last one of a text may be shorter. Input tokens are cached
as far as an earlier request began with the same text, in steps of 16 (OpenAI's are 128, from 1024 on).
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, NamedTuple

from aiohttp import web

from trunkline.testing.providers.content import Asked, Mind, Reply
from trunkline.testing.providers.openai_wire import (
    BadRequest,
    chat_asked,
    chat_chunks,
    chat_whole,
    pieces,
    responses_asked,
    responses_events,
    shortened,
)
from trunkline.testing.providers.server import Answer, Emulator

MODELS: Final = ("gpt-5.4-mini", "gpt-5.4", "gpt-6-luna", "gpt-4.1-mini")
_STEP: Final = 64  # characters


class OpenAiEmulator(Emulator):
    """Thinks as OpenAI's text endpoints do.

    Args:
        mind: what it thinks with.
        key: of the one account; empty: anybody is served.
        first_s: from a request to the first of its answer.
        tokens_per_s: how fast it writes; 0: all at once.
        interleaved: write the arguments of several tools by turns.

    Attributes:
        asked: what its mind was asked.
        bodies: the same, as it came.
        left: how often a client went before the end of an answer.
    """

    def __init__(
        self,
        *,
        mind: Mind | None = None,
        key: str = "test-key",
        first_s: float = 0.35,
        tokens_per_s: float = 80.0,
        interleaved: bool = False,
    ) -> None:
        super().__init__(key=key)
        self._mind = mind or (lambda _: Reply("All right."))
        self._first_s = first_s
        self._token_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._interleaved = interleaved
        self._begun: set[int] = set()
        self._answers = itertools.count(1)
        self.asked: list[Asked] = []
        self.bodies: list[dict[str, Any]] = []
        self.left = 0

    def routes(self) -> list[web.RouteDef]:
        """Serve the endpoints."""
        return [
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/responses", self._responses),
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model:.+}", self._model),
        ]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return OpenAI's error object."""
        types = {401: ("invalid_request_error", "invalid_api_key"), 429: ("requests", "rate_limit_exceeded")}
        kind, code = types.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
        return web.json_response({"error": {"message": text, "type": kind, "param": None, "code": code}}, status=status)

    def unknown(self) -> str:
        """Return an event that neither protocol has."""
        return 'event: response.brand_new\ndata: {"type": "response.brand_new", "sequence_number": 0, "value": 1}\n\n'

    def malformed(self) -> str:
        """Return an event whose data end in their midst."""
        return 'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n'

    # --- the two protocols --------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        refused, body = await self._body(request)
        if refused is not None:
            return refused
        try:
            asked = chat_asked(body)
        except BadRequest as error:
            return self.refusal(400, str(error))
        thought = await self._think(asked, body, body.get("max_completion_tokens") or body.get("max_tokens"))
        if not body.get("stream"):
            answer = await self.stream(request, "application/json")
            return await self._told(answer, [json.dumps(chat_whole(asked.model, *thought))], pace=False)
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = chat_chunks(asked.model, *thought, with_usage=with_usage, interleaved=self._interleaved)
        events = itertools.chain((f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), ["data: [DONE]\n\n"])
        return await self._told(await self.stream(request, "text/event-stream; charset=utf-8"), events)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        refused, body = await self._body(request)
        if refused is not None:
            return refused
        try:
            asked = responses_asked(body)
        except BadRequest as error:
            return self.refusal(400, str(error))
        thought = await self._think(asked, body, body.get("max_output_tokens"))
        events = responses_events(asked.model, *thought)
        if not body.get("stream"):
            *_, last = events
            answer = await self.stream(request, "application/json")
            return await self._told(answer, [json.dumps(last["response"])], pace=False)
        lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return await self._told(await self.stream(request, "text/event-stream; charset=utf-8"), lines)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, self._key(request))
        return refused or web.json_response({"object": "list", "data": [_model(name) for name in MODELS]})

    async def _model(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request, self._key(request))
        return refused or web.json_response(_model(request.match_info["model"]))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _key(self, request: web.Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer").strip() if self.key else ""

    async def _body(self, request: web.Request) -> tuple[web.StreamResponse | None, dict[str, Any]]:
        refused = await self.admit(request, self._key(request))
        if refused is not None:
            return refused, {}
        try:
            body = json.loads(await request.read())
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return self.refusal(400, "We could not parse the JSON body of your request."), {}
        return None, body

    async def _think(self, asked: Asked, body: dict[str, Any], most: int | None) -> "Thought":
        self.asked.append(asked)
        self.bodies.append(body)
        await asyncio.sleep(self._first_s)
        reply, cut = shortened(self._mind(asked), most)
        prompt = json.dumps((asked.tools, asked.history))
        beginnings = [hash(prompt[:end]) for end in range(_STEP, len(prompt), _STEP)]
        cached = sum(beginning in self._begun for beginning in beginnings) * (_STEP // 4)
        self._begun.update(beginnings)
        return Thought(next(self._answers), reply, cut, (len(pieces(prompt)), cached))

    async def _told(
        self, answer: Answer, messages: Sequence[str] | Iterator[str], *, pace: bool = True
    ) -> web.StreamResponse:
        try:
            async for message in self._paced(messages, pace=pace):
                await answer.send(message)
            return await answer.end()
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise

    async def _paced(self, messages: Sequence[str] | Iterator[str], *, pace: bool) -> AsyncIterator[str]:
        for message in messages:
            yield message
            if pace and self._token_s and "delta" in message:
                await asyncio.sleep(self._token_s)


class Thought(NamedTuple):
    """What a request led to."""

    number: int
    reply: Reply
    cut: bool
    read: tuple[int, int]
    """Input tokens, and those of them that were cached."""


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_740_000_000, "owned_by": "system"}

"""Anthropic's side of ``POST /v1/messages``, streamed, as of API version 2026-10-21 (docs.claude.com, "Messages").

Tokens are counted simply: a word is one, wherever it stands; so are a tool's name and each word of its arguments' JSON.
A system prompt marked with ``cache_control`` is written to the cache by its first request and read by later ones.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiohttp import web

from trunkline.testing.providers.content import Asked, Mind, Reply, Said
from trunkline.testing.providers.server import Answer, Emulator

MODELS: Final = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-4-5")
_PIECE: Final = re.compile(r"\s*\S+")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicEmulator(Emulator):
    """Answers as Claude does over the wire.

    Args:
        mind: what it answers.
        key: of the one account, as ``authorization: Bearer`` or ``x-api-key``.
        first_s: from a request to the first words.
        tokens_per_s: of words and of tools' arguments; 0: all at once.

    Attributes:
        asked: what it was asked, as the mind saw it.
        bodies: the same as it was sent.
        overloaded_after: events of an answer after which it breaks off with an error event; None: never.
        left: how often a client went before the end of an answer.
    """

    def __init__(self, *, mind: Mind, key: str = "test-key", first_s: float = 0.35, tokens_per_s: float = 80.0) -> None:
        super().__init__(key=key)
        self._mind = mind
        self._first_s = first_s
        self._token_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._cached: set[str] = set()
        self.asked: list[Asked] = []
        self.bodies: list[dict[str, Any]] = []
        self.overloaded_after: int | None = None
        self.left = 0

    def routes(self) -> list[web.RouteDef]:
        """Serve the endpoints."""
        return [web.post("/v1/messages", self._messages), web.get("/v1/models/{model}", self._model)]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return Anthropic's error object; an overloaded service answers 529."""
        status = 529 if status == 503 else status
        body = {"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": text}}
        return web.json_response(body | {"request_id": self._request_id()}, status=status)

    def unknown(self) -> str:
        """Return an event that does not exist."""
        return _event({"type": "brand_new_thing", "index": "first", "delta": 1})

    def malformed(self) -> str:
        """Return an event that is cut off within its JSON."""
        return 'event: content_block_delta\ndata: {"type": "content_block_del\n\n'

    async def _model(self, request: web.Request) -> web.StreamResponse:
        if (refused := await self.admit(request, _key(request))) is not None:
            return refused
        name = request.match_info["model"]
        if name not in MODELS:
            return self.refusal(404, f"model: {name}")
        return web.json_response(
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-10-07T00:00:00Z"}
        )

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        if (refused := await self.admit(request, _key(request))) is not None:
            return refused
        if not request.headers.get("anthropic-version"):
            return self.refusal(400, "anthropic-version: header is required")
        try:
            body = json.loads(await request.read())
            _validate(body)
        except ValueError as error:
            return self.refusal(400, str(error))
        self.bodies.append(body)
        asked = Asked(body["model"], tuple(_history(body)), tuple(tool["name"] for tool in body.get("tools", ())))
        self.asked.append(asked)
        reply = self._mind(asked)
        usage = self._input_usage(body, asked)
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": self._request_id()}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        answer = Answer(self, request, response.write, response)
        sent = 0
        try:
            async for event in self._events(body, reply, usage):
                if sent == self.overloaded_after:
                    fault = {"type": "overloaded_error", "message": "Overloaded"}
                    await answer.send(_event({"type": "error", "error": fault}))
                    break
                await answer.send(_event(event))
                sent += 1
            return await answer.end()
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise

    async def _events(self, body: dict[str, Any], reply: Reply, usage: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        spent = 0
        message = {
            "id": f"msg_{len(self.bodies):024d}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage | {"output_tokens": 1, "service_tier": "standard"},
        }
        yield {"type": "message_start", "message": message}
        yield {"type": "ping"}
        await asyncio.sleep(self._first_s)
        pieces = _PIECE.findall(reply.text)
        index = 0
        if pieces:
            yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
            for piece in pieces[: body["max_tokens"]]:
                yield {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}}
                spent += 1
                await asyncio.sleep(self._token_s)
            yield {"type": "content_block_stop", "index": index}
            index += 1
        cut = len(pieces) > body["max_tokens"]
        for at, (name, arguments) in enumerate(() if cut else reply.tools):
            block = {"type": "tool_use", "id": f"toolu_{len(self.bodies):020d}{at:02d}", "name": name, "input": {}}
            yield {"type": "content_block_start", "index": index, "content_block": block}
            for piece in ("", *_PIECE.findall(arguments)):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
                spent += 1
                await asyncio.sleep(self._token_s if piece else 0)
            yield {"type": "content_block_stop", "index": index}
            index += 1
        reason = "max_tokens" if cut else "tool_use" if reply.tools else "end_turn"
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": usage | {"output_tokens": spent}}
        yield {"type": "message_stop"}

    def _input_usage(self, body: dict[str, Any], asked: Asked) -> dict[str, Any]:
        words = sum(len(said.text.split()) for said in asked.history) + len(asked.tools)
        kept = [block["text"] for block in _blocks(body.get("system", "")) if block.get("cache_control")]
        count = sum(len(text.split()) for text in kept)
        hit = bool(kept) and "".join(kept) in self._cached
        self._cached.add("".join(kept))
        return {
            "input_tokens": words - count,
            "cache_creation_input_tokens": 0 if hit else count,
            "cache_read_input_tokens": count if hit else 0,
        }

    def _request_id(self) -> str:
        return f"req_{len(self.seen):024d}"


def _key(request: web.Request) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer").strip()
    return bearer or request.headers.get("x-api-key", "")


def _event(value: Mapping[str, Any]) -> str:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n"


# --- what the API checks ----------------------------------------------------------------------------------------------


def _validate(body: Any) -> None:
    """Raise ValueError in the API's words for what it refuses with 400."""
    if not isinstance(body, dict):
        raise ValueError("The request body is not valid JSON: expected an object")  # noqa: TRY004 - a request's fault
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if not isinstance(body.get(name), kind):
            raise ValueError(f"{name}: Field required")  # noqa: TRY004 - a request's fault
    if body["max_tokens"] < 1:
        raise ValueError("max_tokens: Input should be greater than or equal to 1")
    if body.get("stream") is not True:
        raise ValueError("stream: only streamed answers are emulated")
    for name in ("temperature", "top_p", "top_k"):
        if name in body:
            raise ValueError(f"{name}: Extra inputs are not permitted")
    thinking = body.get("thinking", {}).get("type")
    if thinking == "enabled":
        raise ValueError('"thinking.type.enabled" is not supported for this model')
    if thinking == "disabled" and "opus-5" in body["model"]:
        raise ValueError('"thinking.type.disabled" is not supported for this model')
    for at, tool in enumerate(body.get("tools", ())):
        if tool.get("input_schema", {}).get("type") != "object":
            raise ValueError(f"tools.{at}.custom.input_schema.type: Field required")
    _validate_messages(body["messages"])


def _validate_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        raise ValueError("messages: at least one message is required")
    if messages[0].get("role") != "user":
        raise ValueError("messages: first message must use the user role")
    if messages[-1].get("role") != "user":
        raise ValueError(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    uses: list[str] = []
    seen: set[str] = set()
    for at, message in enumerate(messages):
        if message.get("role") not in {"user", "assistant"}:
            raise ValueError(f"messages.{at}.role: Input should be 'user' or 'assistant'")
        blocks = _blocks(message.get("content"))
        _validate_blocks(at, blocks)
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if strange := [use for use in results if use not in uses]:
            raise ValueError(
                f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {strange[0]}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if missing := [use for use in uses if use not in results]:
            raise ValueError(
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len({*uses}) < len(uses) or seen & {*uses}:
            raise ValueError(f"messages.{at}: `tool_use` ids must be unique")
        seen |= {*uses}


def _validate_blocks(at: int, blocks: list[dict[str, Any]]) -> None:
    if not blocks:
        raise ValueError(f"messages.{at}: all messages must have non-empty content")
    for n, block in enumerate(blocks):
        match block.get("type"):
            case "text":
                if not block.get("text", "").strip():
                    raise ValueError("messages: text content blocks must contain non-whitespace text")
            case "tool_use":
                if not _ID.fullmatch(block.get("id", "")):
                    raise ValueError(
                        f"messages.{at}.content.{n}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                    )
                if not isinstance(block.get("input"), dict):
                    problem = f"messages.{at}.content.{n}.tool_use.input: Input should be a valid dictionary"
                    raise ValueError(problem)  # noqa: TRY004 - a request's fault
            case "tool_result":
                if any(before.get("type") != "tool_result" for before in blocks[:n]):
                    raise ValueError(f"messages.{at}: `tool_result` blocks must come first in the content")
            case kind:
                raise ValueError(f"messages.{at}.content.{n}: Input tag '{kind}' is not emulated")


# --- what the mind is shown -------------------------------------------------------------------------------------------


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or ())


def _history(body: dict[str, Any]) -> list[Said]:
    said = [Said("system", block["text"]) for block in _blocks(body.get("system", ""))]
    names: dict[str, str] = {}
    for message in body["messages"]:
        for block in _blocks(message["content"]):
            match block["type"]:
                case "tool_use":
                    names[block["id"]] = block["name"]
                    said.append(Said("tool-asked", json.dumps(block["input"]), block["name"], block["id"]))
                case "tool_result":
                    use = block["tool_use_id"]
                    text = "".join(part.get("text", "") for part in _blocks(block.get("content", "")))
                    said.append(Said("tool-answered", text, names[use], use))
                case _:
                    said.append(Said("caller" if message["role"] == "user" else "agent", block["text"]))
    return said

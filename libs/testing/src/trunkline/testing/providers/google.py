"""Google's side of ``POST /v1*/models/{model}:streamGenerateContent?alt=sse`` (ai.google.dev, "Generating content").

Tokens are counted simply: a word is one, wherever it stands; so are a tool's name and each word of its arguments' JSON.
A system instruction that was seen before counts as cached.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from trunkline.testing.providers.content import Asked, Mind, Reply, Said
from trunkline.testing.providers.server import Emulator

MODELS: Final = ("gemini-3.8-flash", "gemini-2.5-flash", "gemini-2.5-flash-lite")
_PIECE: Final = re.compile(r"\s*\S+")
_UNDERSCORE: Final = re.compile(r"_([a-z])")
_VERBATIM: Final = frozenset({"args", "response", "parameters_json_schema", "parametersJsonSchema"})
_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class GoogleEmulator(Emulator):
    """Answers as Gemini does over the wire.

    Args:
        mind: what it answers.
        key: of the one account, as ``x-goog-api-key``.
        first_s: from a request to the first words.
        tokens_per_s: of words; 0: all at once.

    Attributes:
        asked: what it was asked, as the mind saw it.
        bodies: the same as it was sent, with keys in camel case: the SDK writes some of them otherwise.
        call_ids: whether function calls come with an id; some models give none.
        unavailable_after: pieces of an answer after which it breaks off with an error; None: never.
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
        self.call_ids = False
        self.unavailable_after: int | None = None
        self.left = 0

    def routes(self) -> list[web.RouteDef]:
        """Serve the endpoints."""
        models = "/{version:v1[a-z0-9]*}/models/{model:[^:/]+}"
        return [web.post(f"{models}:streamGenerateContent", self._generate), web.get(models, self._model)]

    def refusal(self, status: int, text: str) -> web.Response:
        """Return Google's error object; a wrong key is an invalid argument to it, and a wait stands in the details."""
        details: list[dict[str, Any]] = []
        if status == 401:
            status = 400
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            details.append(info | {"domain": "googleapis.com"})
        if status == 429:
            delay = f"{self.retry_after_s}s"
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
        return web.json_response(_error(status, text, details), status=status)

    def unknown(self) -> str:
        """Return a piece with fields and a part that do not exist."""
        part = {"brandNewPart": {"value": 1}}
        return _event({"candidates": [{"content": {"parts": [part], "role": "model"}}], "brandNewThing": {"value": 1}})

    def malformed(self) -> str:
        """Return a piece that is cut off within its JSON."""
        return 'data: {"candidates": [{"content": {"par\n\n'

    async def _model(self, request: web.Request) -> web.StreamResponse:
        if (refused := await self.admit(request, request.headers.get("x-goog-api-key", ""))) is not None:
            return refused
        name = request.match_info["model"]
        if name not in MODELS:
            return self.refusal(404, f"models/{name} is not found for API version {request.match_info['version']}")
        return web.json_response({"name": f"models/{name}", "version": "001", "displayName": name})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        if (refused := await self.admit(request, request.headers.get("x-goog-api-key", ""))) is not None:
            return refused
        model = request.match_info["model"]
        if request.query.get("alt") != "sse":
            return self.refusal(400, "only alt=sse is emulated")
        try:
            body = _camel(json.loads(await request.read()))
            _validate(model, body)
        except ValueError as error:
            return self.refusal(400, str(error))
        self.bodies.append(body)
        asked = Asked(model, tuple(_history(body)), tuple(tool["name"] for tool in _declared(body)))
        self.asked.append(asked)
        reply = self._mind(asked)
        answer = await self.stream(request, "text/event-stream")
        try:
            sent = 0
            async for chunk in self._chunks(body, asked, reply):
                if sent == self.unavailable_after:
                    await answer.send(_event(_error(503, "The model is overloaded. Please try again later.", [])))
                    break
                await answer.send(_event(chunk))
                sent += 1
            return await answer.end()
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise

    async def _chunks(self, body: dict[str, Any], asked: Asked, reply: Reply) -> AsyncIterator[dict[str, Any]]:
        usage = self._input_usage(asked)
        pieces = _PIECE.findall(reply.text)
        limit = body.get("generationConfig", {}).get("maxOutputTokens", len(pieces))
        cut = len(pieces) > limit
        steps: list[tuple[list[dict[str, Any]], int]] = [([{"text": piece}], 1) for piece in pieces[:limit]]
        if reply.tools and not cut:
            calls = [self._call(at, name, arguments) for at, (name, arguments) in enumerate(reply.tools)]
            steps.append((calls, sum(1 + len(arguments.split()) for _, arguments in reply.tools)))
        await asyncio.sleep(self._first_s)
        spent = 0
        for at, (parts, tokens) in enumerate(steps or [([{"text": ""}], 0)]):
            spent += tokens
            candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
            if at >= len(steps) - 1:
                candidate["finishReason"] = "MAX_TOKENS" if cut else "STOP"
            counts = {"candidatesTokenCount": spent, "totalTokenCount": usage["promptTokenCount"] + spent}
            yield {
                "candidates": [candidate],
                "usageMetadata": usage | counts,
                "modelVersion": asked.model,
                "responseId": f"r{len(self.bodies)}",
            }
            await asyncio.sleep(self._token_s * tokens)

    def _call(self, at: int, name: str, arguments: str) -> dict[str, Any]:
        call: dict[str, Any] = {"name": name, "args": json.loads(arguments or "{}")}
        if self.call_ids:
            call["id"] = f"fc{len(self.bodies)}-{at}"
        return {"functionCall": call} | ({"thoughtSignature": "c2lnbmVk"} if at == 0 else {})

    def _input_usage(self, asked: Asked) -> dict[str, Any]:
        words = sum(len(said.text.split()) for said in asked.history) + len(asked.tools)
        system = " ".join(said.text for said in asked.history if said.who == "system")
        hit = bool(system) and system in self._cached
        self._cached.add(system)
        return {"promptTokenCount": words} | ({"cachedContentTokenCount": len(system.split())} if hit else {})


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\r\n\r\n"


def _error(status: int, text: str, details: list[dict[str, Any]]) -> dict[str, Any]:
    error: dict[str, Any] = {"code": status, "message": text, "status": _STATUSES.get(status, "UNKNOWN")}
    return {"error": error | ({"details": details} if details else {})}


def _camel(value: Any) -> Any:
    """Return `value` with its keys as the API's documentation has them; it reads them either way."""
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        _UNDERSCORE.sub(lambda found: found[1].upper(), name): item if name in _VERBATIM else _camel(item)
        for name, item in value.items()
    }


# --- what the API checks ----------------------------------------------------------------------------------------------


def _declared(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [declared for tool in body.get("tools", ()) for declared in tool.get("functionDeclarations", ())]


def _validate(model: str, body: Any) -> None:
    """Raise ValueError in the API's words for what it refuses with 400."""
    if not isinstance(body, dict) or not body.get("contents"):
        raise ValueError("* GenerateContentRequest.contents: contents is not specified")
    thinking = body.get("generationConfig", {}).get("thinkingConfig", {})
    if "thinkingBudget" in thinking and "thinkingLevel" in thinking:
        raise ValueError("You can only set only one of thinking budget and thinking level.")
    if model.startswith("gemini-2") and "thinkingLevel" in thinking:
        raise ValueError("Thinking level is not supported for this model.")
    if model == "gemini-3.8-flash" and thinking.get("thinkingLevel") == "MINIMAL":
        raise ValueError("Thinking level MINIMAL is not supported for this model.")
    for declared in _declared(body):
        if "parameters" in declared and "parametersJsonSchema" in declared:
            raise ValueError("parameters and parametersJsonSchema are mutually exclusive")
    contents = body["contents"]
    if contents[-1].get("role") != "user":
        raise ValueError("Please ensure that the conversation ends with a user turn.")
    for at, content in enumerate(contents):
        _validate_content(at, content, contents[at - 1] if at else None)
    if model.startswith("gemini-3"):
        _validate_signatures(contents)


def _validate_content(at: int, content: dict[str, Any], before: dict[str, Any] | None) -> None:
    if content.get("role") not in {"user", "model"}:
        raise ValueError("Please use a valid role: user, model.")
    parts = content.get("parts") or ()
    if not parts or any(not part.keys() & {"text", "functionCall", "functionResponse"} for part in parts):
        raise ValueError(
            f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty."
            " Unable to submit request because it must have a text parameter."
        )
    calls, responses = _names(content, "functionCall"), _names(content, "functionResponse")
    asked = _names(before, "functionCall") if before else []
    if calls and (before is None or before["role"] != "user"):
        raise ValueError(
            "Please ensure that function call turn comes immediately after a user turn or after a function response "
            "turn."
        )
    if responses and not asked:
        raise ValueError("Please ensure that function response turn comes immediately after a function call turn.")
    if len(responses) != len(asked) or sorted(responses) != sorted(asked):
        raise ValueError(
            "Please ensure that the number of function response parts is equal to the number of function call parts "
            "of the function call turn."
        )


def _names(content: dict[str, Any], kind: str) -> list[str]:
    return [part[kind]["name"] for part in content.get("parts", ()) if kind in part]


def _validate_signatures(contents: list[dict[str, Any]]) -> None:
    """Gemini 3 wants back the signature of the first call of each step since the user last said something."""
    last = 0
    for at, content in enumerate(contents):
        if content["role"] == "user" and "text" in content["parts"][0]:
            last = at
    for content in contents[last:]:
        calls = [part for part in content["parts"] if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            raise ValueError("Function call is missing a thought_signature in functionCall parts.")


# --- what the mind is shown -------------------------------------------------------------------------------------------


def _history(body: dict[str, Any]) -> list[Said]:
    said = [Said("system", part["text"]) for part in body.get("systemInstruction", {}).get("parts", ())]
    for content in body["contents"]:
        for part in content["parts"]:
            if "functionCall" in part:
                call = part["functionCall"]
                said.append(Said("tool-asked", json.dumps(call.get("args", {})), call["name"], call.get("id", "")))
            elif "functionResponse" in part:
                response = part["functionResponse"]
                text = json.dumps(response.get("response", {}))
                said.append(Said("tool-answered", text, response["name"], response.get("id", "")))
            else:
                said.append(Said("caller" if content["role"] == "user" else "agent", part["text"]))
    return said

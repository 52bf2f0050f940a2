"""The edge's HTTP: Twilio's voice webhook, its media socket, placing calls, and the chassis's own routes."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import FormData
from starlette.routing import Route, WebSocketRoute
from twilio.twiml.voice_response import Connect, VoiceResponse

from trunkline.edge.carrier import Line
from trunkline.edge.errors import NotPlaced, RequestRefused
from trunkline.edge.exchange import Exchange
from trunkline.edge.gate import Gate, is_near
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.outbound import Dialler
from trunkline.edge.settings import E164, EdgeSettings
from trunkline.edge.signature import PublicUrl
from trunkline.edge.twilio import TwilioStream
from trunkline.edge.websocket import MediaSocket, visitor_of
from trunkline.proto.ids import call_id_of

log = logging.getLogger("trunkline.edge.http")

VOICE_HOOK: Final = "/twilio/voice-hook"
MEDIA_STREAM: Final = "/twilio/media-stream"
CALL_START: Final = "/call/start"
HEALTH: Final = "/health/"
MAX_BODY_BYTES: Final = 65_536
_MAX_FIELDS: Final = 500


class CallOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /call/start``: a number in E.164 and the agent who is to speak."""

    to: str
    agent: str


class Reception(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests are received, and with what."""

    exchange: Exchange
    gate: Gate
    public: PublicUrl
    dialler: Dialler
    metrics: EdgeMetrics
    settings: EdgeSettings

    def app(self, others: Sequence[Route]) -> FastAPI:
        """Return the app; `others` are the routes of the chassis. Of those only health is for everybody here."""
        app = FastAPI(title="Trunkline edge", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route(VOICE_HOOK, self.voice_hook, methods=["POST"], response_model=None)
        app.add_api_route(CALL_START, self.call_start, methods=["POST"], response_model=None)
        app.router.routes.append(WebSocketRoute(MEDIA_STREAM, MediaSocket(self.gate, self._answer, self.metrics)))
        app.router.routes.extend(route if route.path.startswith(HEALTH) else self._guarded(route) for route in others)

        @app.exception_handler(RequestRefused)
        async def refused(request: Request, error: RequestRefused) -> Response:
            self.metrics.refused[error.reason] += 1
            extra = {"path": request.url.path, "status": error.status, "reason": error.reason, "problem": str(error)}
            log.warning("request refused", extra=extra | ({"pii.problem": error.private} if error.private else {}))
            return PlainTextResponse(f"{error}: {error.private}\n" if error.private else f"{error}\n", error.status)

        return app

    async def voice_hook(self, request: Request) -> Response:
        """Answer Twilio's question what to do with a call: connect it to our media socket."""
        form = _form(await _body(request))
        problem = self.gate.webhook(visitor_of(request.scope), form)
        if problem is not None:
            raise RequestRefused(403, "webhook-not-allowed", problem)
        agent = self._known_agent(request.query_params.get("agent") or self.settings.default_agent)
        await self._ring(agent)
        connect = Connect()
        stream = connect.stream(url=self.public.socket(MEDIA_STREAM))
        stream.parameter(name="agent", value=agent)
        if str(form.get("Direction", "")).startswith("outbound"):
            stream.parameter(name="direction", value="outbound")
        answer = VoiceResponse()
        answer.append(connect)
        return Response(str(answer), media_type="application/xml")

    async def call_start(self, request: Request) -> Response:
        """Place an outbound call. 201 with the carrier's id of the call, and ours."""
        self._authorise(request)
        if missing := self.dialler.missing:
            raise RequestRefused(503, "outbound-not-configured", f"not set: {', '.join(missing)}")
        try:
            order = msgspec.json.decode(await _body(request), type=CallOrder)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise RequestRefused(400, "bad-order", str(error)) from error
        if not E164.fullmatch(order.to):
            raise RequestRefused(400, "bad-order", "`to` must be a number in E.164, such as +15551230000")
        agent = self._known_agent(order.agent)
        try:
            placed = await self.dialler.place(order.to, agent)
        except NotPlaced as error:
            raise RequestRefused(502, "not-placed", str(error), error.detail) from error
        await self._ring(agent)
        call = call_id_of(TwilioStream().name, placed.call_sid)
        log.info("call placed", extra={"call": call, "agent": agent, "pii.to": order.to})
        return JSONResponse({"call": call, "call_sid": placed.call_sid, "status": placed.status, "agent": agent}, 201)

    async def _answer(self, line: Line) -> None:
        await self.exchange.answer(line, TwilioStream())

    async def _ring(self, name: str) -> None:
        if (agent := self.exchange.agents.get(name)) is not None:
            await self.exchange.ringing(agent)

    def _known_agent(self, name: str) -> str:
        agents = self.exchange.agents
        if agents.get(name) is None:
            text = f"no such agent {name[:64]!r}; there are: {', '.join(agents.names)}"
            raise RequestRefused(404, "no-such-agent", text)
        return name

    def _authorise(self, request: Request) -> None:
        if self.gate.loopback_only:
            if problem := self.gate.local(visitor_of(request.scope)):
                raise RequestRefused(403, "order-not-allowed", problem)
        elif self.settings.api_token and not self._bears_token(request):
            raise RequestRefused(401, "order-not-allowed", "a bearer token is needed: TRUNKLINE_EDGE_API_TOKEN")

    def _bears_token(self, request: Request) -> bool:
        token = self.settings.api_token
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = secrets.compare_digest(given.strip().encode(), token.encode())
        return bool(token) and scheme.lower() == "bearer" and same

    def _guarded(self, route: Route) -> Route:
        """Return `route` for visitors of this machine and bearers of the token: this port may be open to the world."""
        serve: Callable[[Request], Awaitable[Response]] = route.endpoint

        async def guarded(request: Request) -> Response:
            if is_near(visitor_of(request.scope)) or self._bears_token(request):
                return await serve(request)
            raise RequestRefused(
                403,
                "page-not-allowed",
                "served to clients of this machine, and to those with the bearer token TRUNKLINE_EDGE_API_TOKEN",
            )

        return Route(route.path, guarded)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RequestRefused(413, "body-too-large", f"more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _form(body: bytes) -> FormData:
    """Read a form as it is signed: repeated names and empty values count."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise RequestRefused(400, "bad-form", f"no form of at most {_MAX_FIELDS} fields: {error}") from error
    return FormData([*pairs])

"""The edge's HTTP: Twilio's voice webhook, its media socket, placing calls, and the chassis's own routes."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import FormData
from starlette.routing import Route

from trunkline.bus import BusUnavailable
from trunkline.edge import twiml
from trunkline.edge.carrier import Line
from trunkline.edge.comeback import read_record
from trunkline.edge.errors import NotPlaced, RequestRefused
from trunkline.edge.exchange import Exchange
from trunkline.edge.gate import Gate, is_near
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.outbound import Dialler
from trunkline.edge.settings import E164, EdgeSettings
from trunkline.edge.signature import PublicUrl
from trunkline.edge.twilio import TwilioStream
from trunkline.edge.websocket import MediaSocket, visitor_of
from trunkline.proto.ids import CallId, call_id_of

log = logging.getLogger("trunkline.edge.http")

VOICE_HOOK: Final = "/twilio/voice-hook"
LINE_OVER: Final = "/twilio/line-over"
MEDIA_STREAM: Final = "/twilio/media-stream"
CALL_START: Final = "/call/start"
HEALTH: Final = "/health/"
MAX_BODY_BYTES: Final = 65_536
MOST_COMEBACKS: Final = 20
"""A call that has come back so often comes back no more: its callers must not go in circles at our expense."""
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
        app.add_api_route(LINE_OVER, self.line_over, methods=["POST"], response_model=None)
        app.add_api_route(CALL_START, self.call_start, methods=["POST"], response_model=None)
        app.router.routes.extend(route if route.path.startswith(HEALTH) else self._guarded(route) for route in others)

        @app.exception_handler(RequestRefused)
        async def refused(request: Request, error: RequestRefused) -> Response:
            self.metrics.refused[error.reason] += 1
            extra = {"path": request.url.path, "status": error.status, "reason": error.reason, "problem": str(error)}
            log.warning("request refused", extra=extra | ({"pii.problem": error.private} if error.private else {}))
            return PlainTextResponse(f"{error}: {error.private}\n" if error.private else f"{error}\n", error.status)

        return app

    def sockets(self) -> MediaSocket:
        """Return where Twilio's media streams connect to."""
        return MediaSocket(MEDIA_STREAM, self.gate, self._answer, self.metrics)

    async def voice_hook(self, request: Request) -> Response:
        """Answer Twilio's question what to do with a call: connect it to our media socket, unless there is no room."""
        form = await self._signed_form(request)
        name = self._known_agent(request.query_params.get("agent") or self.settings.default_agent)
        agent = self.exchange.agents.get(name)
        if (no_room := self.exchange.room()) is not None:
            self.metrics.refused["voice-hook-busy"] += 1
            log.warning("call not taken", extra={"call": _call_of(form), "agent": name, "why": no_room})
            return _twiml(twiml.hang_up(agent.busy if agent else ""))
        await self._ring(name)
        return _twiml(self._connect(name, form))

    async def line_over(self, request: Request) -> Response:
        """Answer Twilio's question what to do with a call whose stream has ended: connect it again, unless it is over.

        A call that has no record never began: its stream was refused, mostly because the last room went to another
        between this edge's answer to the voice hook and the stream. Its caller is told so.

        Where the record cannot be read, a call lives that has not ended here: who is hung up on is lost, and who is
        connected in vain is asked about once more.
        """
        form = await self._signed_form(request)
        call = _call_of(form)
        name = request.query_params.get("agent") or self.settings.default_agent
        agent, times = self.exchange.agents.get(name), _count(request.query_params.get("times"))
        try:
            found = await read_record(self.exchange.store, call)
        except BusUnavailable as error:
            over, began = self.exchange.ended_lately(call), True
            log.warning("not known whether a call goes on", extra={"call": call, "ended": over, "problem": str(error)})
        else:
            over = found is None or found[0].state == "ended"
            began = found is not None or times > 0 or self.exchange.ended_lately(call)
            if found is not None:
                agent, times = found[0].agent, max(times, found[0].comebacks)
        log.info("line over", extra={"call": call, "ended": over, "times": times})
        if over:
            return _twiml(twiml.hang_up(agent.busy if agent and not began else ""))
        if times >= MOST_COMEBACKS or agent is None:
            self.metrics.refused["line-over-too-often"] += 1
            return _twiml(twiml.hang_up(agent.farewell if agent else ""))
        return _twiml(self._connect(agent.name, form, times + 1))

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

    async def _signed_form(self, request: Request) -> FormData:
        form = _form(await _body(request))
        problem = self.gate.webhook(visitor_of(request.scope), form)
        if problem is not None:
            raise RequestRefused(403, "webhook-not-allowed", problem)
        return form

    def _connect(self, agent: str, form: FormData, times: int = 0) -> str:
        """Return the instructions for a stream, the first of its call or (`times`) one after others."""
        query = {"agent": agent} | ({"times": str(times)} if times else {})
        return twiml.connect(
            self.public.socket(MEDIA_STREAM),
            self.public.http(LINE_OVER, urlencode(query)),
            agent,
            outbound=twiml.is_outbound(form),
            again=times > 0,
        )

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


def _twiml(document: str) -> Response:
    return Response(document, media_type=twiml.MEDIA_TYPE)


def _call_of(form: FormData) -> CallId:
    return call_id_of(TwilioStream().name, str(form.get("CallSid", "")))


def _count(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 4 else 0


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

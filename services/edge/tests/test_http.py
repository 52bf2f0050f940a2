"""The edge's routes over real HTTP, and Twilio's REST API as a tiny emulator the official SDK talks to."""

import asyncio
import contextlib
import html
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from twilio.request_validator import RequestValidator

from trunkline.proto import codec
from trunkline.proto.agent import Agent
from trunkline.proto.ids import WorkerId, call_id_of
from trunkline.proto.records import CallRecord, edge_key
from trunkline.runtime.http import listen, serving
from trunkline.runtime.settings import SettingsError
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.twilio import StreamVerb, new_call_sid, parse_twiml

pytestmark = pytest.mark.integration

OUTBOUND = {
    "TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
    "TWILIO_AUTH_TOKEN": "12345",
    "TWILIO_FROM": "+15551230000",
    "EDGE_API_TOKEN": "sesame",
    "EDGE_PUBLIC_URL": "https://voice.example.com",
}
SIGNED = {"TWILIO_AUTH_TOKEN": "12345", "EDGE_PUBLIC_URL": "https://voice.example.com"}
BEARER = {"Authorization": "Bearer sesame"}
FORWARDED = {"X-Forwarded-For": "203.0.113.9"}


@contextlib.asynccontextmanager
async def twilio_rest(status=201):
    """Yield the URL of an emulator and the forms it was sent."""
    asked = []

    async def create(request):
        asked.append((request.url.path, request.headers["authorization"], parse_qs((await request.body()).decode())))
        if status != 201:
            body = {
                "code": 21211,
                "message": "The 'To' number +15557654321 is not valid",
                "status": status,
                "more_info": "",
            }
            return JSONResponse(body, status)
        return JSONResponse({"sid": "CA" + "7" * 32, "status": "queued"}, 201)

    app = Starlette(routes=[Route("/2010-04-01/Accounts/{account}/Calls.json", create, methods=["POST"])])
    async with serving(app, listen("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.port}", asked


@contextlib.asynccontextmanager
async def client_of(rig):
    async with httpx.AsyncClient(base_url=rig.http, trust_env=False, timeout=PATIENCE_S) as client:
        yield client


HUNG_UP = "<Response><Hangup /></Response>"


def redirected_to(answer):
    """Return where a TwiML document sends Twilio once its stream is over."""
    assert parse_twiml(answer.text, "http://unused").verbs == ("Connect", "Redirect")
    return html.unescape(re.search('<Redirect method="POST">(.*)</Redirect>', answer.text)[1])


class TestTheVoiceHook:
    def ask(self, edge_rig, path="/twilio/voice-hook", *, form=None, environ=None, **kwargs):
        async def story():
            async with edge_rig(**(environ or {})) as rig, client_of(rig) as client:
                answer = await client.post(path, data=form or {"CallSid": "CA1", "Empty": ""}, **kwargs)
                return rig, answer

        return asyncio.run(story())

    def test_connects_the_call_to_our_socket_with_the_default_agent(self, edge_rig):
        rig, answer = self.ask(edge_rig)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/xml")
        assert parse_twiml(answer.text, rig.http).stream == StreamVerb(
            rig.ws, {"agent": "restaurant", "returns": "1"}, False
        )

    def test_has_us_asked_what_is_next_when_the_stream_is_over(self, edge_rig):
        rig, answer = self.ask(edge_rig)
        assert redirected_to(answer) == f"{rig.http}/twilio/line-over?agent=restaurant"

    def test_of_an_edge_without_room_says_that_all_lines_are_busy(self, edge_rig):
        async def story():
            async with edge_rig(EDGE_CAPACITY="1", lines='busy = "Busy & <gone>."') as rig, client_of(rig) as client:
                answered = asyncio.Event()
                call = asyncio.create_task(rig.good_call(until=lambda _: answered.is_set()))
                await until(lambda: rig.edge.exchange.calls)
                full = await client.post("/twilio/voice-hook", data={"CallSid": "CA1"})
                answered.set()
                await call
                await until(lambda: not rig.edge.exchange.calls)
                free = await client.post("/twilio/voice-hook", data={"CallSid": "CA1"})
                return full, free, rig.metrics.refused["voice-hook-busy"]

        full, free, refused = asyncio.run(story())
        assert full.text.endswith("<Response><Say>Busy &amp; &lt;gone&gt;.</Say><Hangup /></Response>")
        assert redirected_to(free)
        assert refused == 1

    def test_uses_the_public_url_and_marks_outbound_calls(self, edge_rig):
        environ = {"EDGE_PUBLIC_URL": "https://voice.example.com"}
        form = {"CallSid": "CA1", "Direction": "outbound-api"}
        _, answer = self.ask(edge_rig, form=form, environ=environ)
        stream = parse_twiml(answer.text, "https://voice.example.com").stream
        assert stream.url == "wss://voice.example.com/twilio/media-stream"
        assert stream.parameters == {"agent": "restaurant", "returns": "1", "direction": "outbound"}

    def test_of_an_unknown_agent_is_not_found_and_names_the_known_ones(self, edge_rig):
        _, answer = self.ask(edge_rig, "/twilio/voice-hook?agent=nobody")
        assert answer.status_code == 404
        assert "'nobody'" in answer.text
        assert "restaurant" in answer.text

    def test_takes_64_kib_and_no_more(self, edge_rig):
        _, answer = self.ask(edge_rig, form={"x": "y" * 70_000})
        assert answer.status_code == 413

    def test_refuses_a_form_of_too_many_fields(self, edge_rig):
        _, answer = self.ask(edge_rig, form={f"f{index}": "1" for index in range(600)})
        assert answer.status_code == 400

    def test_of_a_forwarded_request_without_a_token_names_the_variable(self, edge_rig):
        _, answer = self.ask(edge_rig, headers={"X-Forwarded-For": "203.0.113.9"})
        assert answer.status_code == 403
        assert "TRUNKLINE_TWILIO_AUTH_TOKEN" in answer.text

    def test_takes_posts_only(self, edge_rig):
        async def story():
            async with edge_rig() as rig, client_of(rig) as client:
                assert (await client.get("/twilio/voice-hook")).status_code == 405

        asyncio.run(story())


class TestWhenAStreamIsOver:
    """What Twilio is told when it comes back from ``<Connect>``."""

    PATH = "/twilio/line-over?agent=restaurant"

    def ask(self, edge_rig, *, path=PATH, form=None, before=None, environ=None, headers=None, **changes):
        """Return the rig and the answer about a call with a record of `changes`; none of it, no record."""

        async def story():
            async with edge_rig(**(environ or {})) as rig, client_of(rig) as client:
                sid = new_call_sid()
                if changes:
                    await self.keep(rig, sid, **changes)
                if before is not None:
                    await before(rig, sid)
                fields = {"CallSid": sid} | (form or {})
                return rig, await client.post(path, data=fields, headers=headers(path, fields) if headers else None)

        return asyncio.run(story())

    async def keep(self, rig, sid, **changes):
        known = {
            "call": call_id_of("twilio", sid),
            "state": "live",
            "edge": WorkerId("edge-gone"),
            "written_at": time.time(),
            "agent": Agent(name="moved-out", farewell="So long & thanks."),
            "carrier": "twilio",
            "carrier_call": sid,
            "started_at": time.time(),
        }
        record = CallRecord(**(known | changes))
        await rig.edge.exchange.store.put(edge_key(record.call), codec.encode(record), 0)

    @pytest.mark.parametrize("state", ["live", "away"])
    def test_a_call_that_lives_is_connected_again_with_the_agent_it_has(self, edge_rig, state):
        rig, answer = self.ask(edge_rig, state=state, form={"Direction": "outbound-api"})
        assert answer.headers["content-type"].startswith("application/xml")
        assert parse_twiml(answer.text, rig.http).stream.parameters == {
            "agent": "moved-out",
            "returns": "1",
            "again": "1",
            "direction": "outbound",
        }
        assert redirected_to(answer) == f"{rig.http}/twilio/line-over?agent=moved-out&times=1"

    def test_a_call_that_has_ended_is_hung_up(self, edge_rig):
        _, answer = self.ask(edge_rig, state="ended")
        assert answer.text.endswith(HUNG_UP)

    def test_a_call_that_never_began_for_want_of_room_hears_that_all_lines_are_busy(self, edge_rig):
        _, answer = self.ask(edge_rig, environ={"lines": 'busy = "Busy & <gone>."'})
        assert answer.text.endswith("<Response><Say>Busy &amp; &lt;gone&gt;.</Say><Hangup /></Response>")

    def test_a_call_that_came_back_and_of_which_nothing_is_known_is_hung_up(self, edge_rig):
        _, answer = self.ask(edge_rig, path=self.PATH + "&times=1", environ={"lines": 'busy = "Busy."'})
        assert answer.text.endswith(HUNG_UP)

    @pytest.mark.parametrize("how", ["path", "record"])
    def test_a_call_that_came_back_too_often_hears_the_farewell(self, edge_rig, how):
        path = self.PATH + "&times=20" if how == "path" else self.PATH
        _, answer = self.ask(edge_rig, path=path, comebacks=20 if how == "record" else 0)
        assert answer.text.endswith("<Response><Say>So long &amp; thanks.</Say><Hangup /></Response>")

    def test_an_edge_that_is_full_or_drains_still_connects(self, edge_rig):
        async def drain(rig, _sid):
            await rig.edge.exchange.drain()

        _, answer = self.ask(edge_rig, before=drain, state="away")
        assert redirected_to(answer)

    def test_a_call_whose_record_cannot_be_read_is_taken_to_live(self, edge_rig):
        async def spoil(rig, sid):
            await rig.edge.exchange.store.put(edge_key(call_id_of("twilio", sid)), b"{}", 0)

        rig, answer = self.ask(edge_rig, before=spoil)
        assert parse_twiml(answer.text, rig.http).stream.parameters == {
            "agent": "restaurant",
            "returns": "1",
            "again": "1",
        }

    def test_a_call_that_ended_here_is_over_though_no_record_can_be_read(self, edge_rig):
        async def end_and_spoil(rig, sid):
            await rig.good_call(0.2, dial=rig.dial(call_sid=sid))
            await until(lambda: not rig.edge.exchange.calls)
            key = edge_key(call_id_of("twilio", sid))
            await rig.edge.exchange.store.delete(key)
            await rig.edge.exchange.store.put(key, b"{}", 0)

        _, answer = self.ask(edge_rig, before=end_and_spoil)
        assert answer.text.endswith(HUNG_UP)

    def test_a_call_that_ended_well_is_hung_up(self, edge_rig):
        async def end(rig, sid):
            await rig.good_call(0.2, dial=rig.dial(call_sid=sid))
            await until(lambda: not rig.edge.exchange.calls)

        _, answer = self.ask(edge_rig, before=end)
        assert answer.text.endswith(HUNG_UP)

    def test_is_asked_by_twilio_and_nobody_else(self, edge_rig):
        def signed(path, fields, token=SIGNED["TWILIO_AUTH_TOKEN"]):
            url = SIGNED["EDGE_PUBLIC_URL"] + path
            return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, fields)}

        def tampered(path, fields):
            return signed(urlsplit(path).path + "?agent=another", fields)

        _, answer = self.ask(edge_rig, environ=SIGNED, headers=signed, state="away")
        assert answer.status_code == 200
        assert redirected_to(answer) == "https://voice.example.com/twilio/line-over?agent=moved-out&times=1"
        for wrong in (tampered, lambda path, fields: signed(path, fields, "54321"), lambda _path, _fields: {}):
            _, answer = self.ask(edge_rig, environ=SIGNED, headers=wrong, state="away")
            assert answer.status_code == 403


class TestPlacingACall:
    def place(self, edge_rig, body, *, headers=BEARER, status=201, without=()):
        async def story():
            async with twilio_rest(status) as (url, asked):
                environ = {name: value for name, value in OUTBOUND.items() if name not in without}
                async with edge_rig(**environ, TWILIO_API_URL=url) as rig, client_of(rig) as client:
                    answer = await client.post("/call/start", json=body, headers=headers)
                    return answer, asked

        return asyncio.run(story())

    def test_asks_twilio_with_the_official_client(self, edge_rig):
        answer, asked = self.place(edge_rig, {"to": "+15557654321", "agent": "restaurant"})
        assert answer.status_code == 201
        assert answer.json()["call_sid"] == "CA" + "7" * 32
        assert len(answer.json()["call"]) == 26
        [(path, authorization, form)] = asked
        assert path.endswith(f"/Accounts/{OUTBOUND['TWILIO_ACCOUNT_SID']}/Calls.json")
        assert authorization.startswith("Basic ")
        assert form == {
            "To": ["+15557654321"],
            "From": ["+15551230000"],
            "Url": ["https://voice.example.com/twilio/voice-hook?agent=restaurant"],
        }

    @pytest.mark.parametrize(
        "body",
        [
            {"to": "5557654321", "agent": "restaurant"},
            {"to": "+15557654321"},
            {"to": "+15557654321", "agent": "restaurant", "url": "http://evil"},
            {"to": 15557654321, "agent": "restaurant"},
            [],
        ],
    )
    def test_takes_exactly_a_number_and_an_agent(self, edge_rig, body):
        answer, asked = self.place(edge_rig, body)
        assert answer.status_code == 400
        assert asked == []

    def test_of_an_unknown_agent_is_not_found(self, edge_rig):
        answer, asked = self.place(edge_rig, {"to": "+15557654321", "agent": "nobody"})
        assert (answer.status_code, asked) == (404, [])

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic sesame"}])
    def test_needs_the_bearer_token(self, edge_rig, headers):
        answer, asked = self.place(edge_rig, {"to": "+15557654321", "agent": "restaurant"}, headers=headers)
        assert (answer.status_code, asked) == (401, [])

    def test_passes_on_why_twilio_refused_and_logs_no_number(self, edge_rig, caplog):
        answer, _ = self.place(edge_rig, {"to": "+15557654321", "agent": "restaurant"}, status=400)
        assert answer.status_code == 502
        assert "21211" in answer.text
        assert "+15557654321" in answer.text
        [refused] = [vars(record) for record in caplog.records if record.message == "request refused"]
        assert refused["problem"] == "Twilio refused the call: 400 21211"
        assert "+15557654321" in refused["pii.problem"]
        public = [value for record in caplog.records for key, value in vars(record).items() if "pii." not in key]
        assert "+15557654321" not in repr(public)

    def test_of_a_twilio_that_is_not_there_tells_what_went_wrong_to_the_one_who_asked(self, edge_rig):
        async def story():
            environ = OUTBOUND | {"TWILIO_API_URL": "http://127.0.0.1:1"}
            async with edge_rig(**environ) as rig, client_of(rig) as client:
                order = {"to": "+15557654321", "agent": "restaurant"}
                return await client.post("/call/start", json=order, headers=BEARER)

        answer = asyncio.run(story())
        assert answer.status_code == 502
        assert answer.text.startswith("Twilio could not be asked: ")

    @pytest.mark.parametrize("name", ["TWILIO_ACCOUNT_SID", "TWILIO_FROM", "EDGE_API_TOKEN"])
    def test_without_one_of_the_settings_names_exactly_that(self, edge_rig, name):
        answer, asked = self.place(edge_rig, {"to": "+15557654321", "agent": "restaurant"}, without=(name,))
        assert (answer.status_code, asked) == (503, [])
        assert answer.text == f"not set: TRUNKLINE_{name}\n"

    def test_on_an_edge_for_loopback_only_names_all_that_is_missing(self, edge_rig):
        answer, _ = self.place(edge_rig, {"to": "+1555", "agent": "restaurant"}, without=tuple(OUTBOUND))
        assert answer.status_code == 503
        assert all(f"TRUNKLINE_{name}" in answer.text for name in OUTBOUND)


class TestPagesOfTheProcess:
    def ask(self, edge_rig, headers, paths=("/metrics", "/stats"), **environ):
        async def story():
            async with edge_rig(**environ) as rig, client_of(rig) as client:
                return [await client.get(path, headers=headers) for path in paths]

        return asyncio.run(story())

    def test_are_for_this_machine(self, edge_rig):
        assert [answer.status_code for answer in self.ask(edge_rig, {})] == [200, 200]

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}])
    @pytest.mark.parametrize("environ", [{}, OUTBOUND])
    def test_are_not_for_those_a_proxy_forwards(self, edge_rig, headers, environ):
        for answer in self.ask(edge_rig, headers | FORWARDED, **environ):
            assert answer.status_code == 403
            assert "TRUNKLINE_EDGE_API_TOKEN" in answer.text
            assert "trunkline_edge" not in answer.text

    def test_are_for_bearers_of_the_token_wherever_they_are(self, edge_rig):
        answers = self.ask(edge_rig, BEARER | FORWARDED, **OUTBOUND)
        assert [answer.status_code for answer in answers] == [200, 200]

    def test_about_health_are_for_everybody(self, edge_rig):
        answers = self.ask(edge_rig, FORWARDED, ("/health/live", "/health/ready"))
        assert [answer.status_code for answer in answers] == [200, 200]

    def test_show_what_the_bus_counts(self, edge_rig):
        async def story():
            async with edge_rig() as rig, client_of(rig) as client:
                await rig.good_call(0.3)
                await until(lambda: not rig.edge.exchange.calls)
                assert await rig.edge.exchange.events.flush(PATIENCE_S)
                return (await client.get("/metrics")).text, (await client.get("/stats")).text

        metrics, stats = asyncio.run(story())
        assert 'trunkline_edge_bus_media_total{what="sent"}' in metrics
        assert 'trunkline_edge_event_log_total{what="dropped"} 0.0' in metrics
        assert 'trunkline_edge_event_log_total{what="stored"}' in metrics
        assert "trunkline_edge_event_log_pending 0.0" in metrics
        for row in ("media lane: sent", "events: stored", "events: dropped", "events: pending"):
            assert row in stats


class TestTheProcess:
    def test_serves_health_metrics_and_statistics_beside_the_calls(self, edge_rig):
        async def story():
            async with edge_rig() as rig, client_of(rig) as client:
                await rig.good_call(0.3)
                await until(lambda: not rig.edge.exchange.calls)
                assert (await client.get("/health/live")).status_code == 200
                assert (await client.get("/health/ready")).json() == {"ready": True, "problems": {}}
                metrics = (await client.get("/metrics")).text
                assert 'trunkline_edge_calls_ended_total{what="customer-ended-call"} 1.0' in metrics
                assert "trunkline_edge_calls 0.0" in metrics
                stats = (await client.get("/stats")).text
                assert "restaurant" in stats
                assert "traffic: frames_in" in stats

        asyncio.run(story())

    def test_does_not_start_with_a_wrong_agent_file(self, edge_rig, tmp_path):
        (tmp_path / "agents").mkdir()
        (tmp_path / "agents" / "x.toml").write_text("name = 'x'\n[turns]\nbarge_inn = true")

        async def story():
            async with edge_rig():
                pass

        with pytest.raises(SettingsError, match=r"x\.toml: turns\.barge_inn: unknown key; did you mean barge_in\?"):
            asyncio.run(story())

    def test_does_not_start_on_a_port_that_is_taken_and_names_the_variable(self, edge_rig):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()

            async def story():
                async with edge_rig(EDGE_PORT=str(taken.getsockname()[1])):
                    pass

            with pytest.raises(SettingsError, match="TRUNKLINE_EDGE_PORT"):
                asyncio.run(story())

    def test_refuses_to_be_open_to_everybody_without_a_secret(self):
        environ = os.environ | {"TRUNKLINE_EDGE_HOST": "0.0.0.0", "TRUNKLINE_TWILIO_AUTH_TOKEN": ""}
        command = [sys.executable, "-m", "trunkline.edge"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 2
        assert "TRUNKLINE_EDGE_HOST" in done.stderr
        assert "TRUNKLINE_TWILIO_AUTH_TOKEN" in done.stderr

    def test_starts_says_that_it_is_ready_and_stops_when_asked(self, nats, tmp_path):
        (tmp_path / "restaurant.toml").write_text("name = 'restaurant'")
        environ = os.environ | {
            "TRUNKLINE_NATS_URL": nats.url,
            "TRUNKLINE_AGENTS": str(tmp_path),
            "TRUNKLINE_EDGE_PORT": "0",
            "TRUNKLINE_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-m", "trunkline.edge"]
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as edge:
            lines = []
            for line in edge.stdout:
                lines.append(line)
                if '"ready"' in line:
                    edge.send_signal(signal.SIGTERM)
            assert edge.wait(PATIENCE_S) == 0
        assert any('"listening"' in line for line in lines)
        assert not any("Traceback" in line for line in lines)

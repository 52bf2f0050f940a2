"""OpenAI's transcription through the official SDK, against the emulator."""

import asyncio
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from trunkline.proto.agent import Stt, Timeouts
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import Misconfigured, Rejected, Throttled
from trunkline.stt.provider import Billed, Failed, Final, providers
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers.content import Lines
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration

PATIENT = Timeouts(connect_ms=60_000)
STT = Stt(provider="openai", timeouts=PATIENT)
KEY = "test-key-that-nobody-may-read"
FIRST, SECOND = UtteranceId(1), UtteranceId(2)


def sound(loud_s=1.0):
    loud = 6_000 * np.sin(2 * np.pi * 300 * np.arange(int(loud_s * 8_000)) / 8_000)
    return np.concatenate([np.zeros(2_400), loud, np.zeros(4_800)]).astype("<i2").tobytes()


class Call(NamedTuple):
    emulator: OpenAiAudioEmulator
    stream: object
    heard: list
    provider: object

    def say(self, utterance, pcm=None):
        self.stream.begin(utterance)
        pcm = sound() if pcm is None else pcm
        for at in range(0, len(pcm), 512):
            self.stream.push(pcm[at : at + 512], voiced=True)
        self.stream.finish()

    async def told(self, count, of=(Final, Failed)):
        """Wait until `count` utterances have had their answer; return the answers."""
        await until(lambda: sum(isinstance(heard, of) for heard in self.heard) >= count)
        return [heard for heard in self.heard if isinstance(heard, of)]


def told(story, *, key=KEY, stt=STT, lines=("a table for two", "at eight"), **emulated):
    async def run():
        quick = {"transcribe_s": 0, "ear": Lines(lines), "key": KEY} | emulated
        async with OpenAiAudioEmulator(**quick) as emulator:
            environ = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": f"{emulator.url}/v1"}
            plugins = providers(environ, [])
            provider = plugins.get("openai")
            heard = []
            stream = await provider.open(msgspec.structs.replace(stt, timeouts=PATIENT), heard.append)
            try:
                await story(Call(emulator, stream, heard, provider))
            finally:
                await stream.aclose()
                await plugins.aclose()

    asyncio.run(run())


def test_utterances_become_words_one_request_each():
    async def story(call):
        call.stream.push(sound(), voiced=True)  # belongs to no utterance
        call.say(FIRST)
        await call.told(1)
        call.say(SECOND, sound(2.0))
        assert await call.told(2) == [Final(FIRST, "a table for two"), Final(SECOND, "at eight")]
        sent = call.emulator.heard
        assert [(asked.rate_hz, len(asked.samples)) for asked in sent] == [(8_000, 15_200), (8_000, 23_200)]
        assert sent[0].samples.tobytes() == sound()
        assert [asked.model for asked in sent] == ["gpt-4o-mini-transcribe"] * 2
        assert sent[0].fields["language"] == ("en",)
        assert "prompt" not in sent[0].fields

    told(story)


def test_what_is_billed_is_counted_over_the_stream():
    async def by_tokens(call):
        call.say(FIRST)
        call.say(SECOND)
        assert await call.told(2, of=Billed) == [Billed(1.9), Billed(3.8)]

    async def by_the_services_own_figure(call):
        call.say(FIRST, sound(1.0125))
        assert await call.told(1, of=Billed) == [Billed(1.91)]

    told(by_tokens)
    told(by_the_services_own_figure, stt=Stt(provider="openai", model="whisper-1"))


def test_key_terms_reach_the_model_in_its_own_way():
    async def as_a_prompt(call):
        call.say(FIRST)
        await call.told(1)
        assert call.emulator.heard[0].fields["prompt"] == ("A restaurant. Trunkline, Krzysztof",)
        assert call.emulator.heard[0].fields["temperature"] == ("0.0",)

    async def as_a_list(call):
        call.say(FIRST)
        await call.told(1)
        fields = call.emulator.heard[0].fields
        assert (fields["keywords"], fields["languages"]) == (("Trunkline", "Krzysztof"), ("pl",))
        assert not {"prompt", "language"} & set(fields)

    terms = ("Trunkline", "Krzysztof")
    told(as_a_prompt, stt=Stt(keyterms=terms, options={"prompt": "A restaurant.", "temperature": 0.0}))
    told(as_a_list, stt=Stt(keyterms=terms, language="pl", model="gpt-transcribe"))


def test_an_utterance_without_words_is_final_and_empty():
    async def story(call):
        call.say(FIRST, bytes(16_000))
        assert await call.told(1) == [Final(FIRST, "")]

    told(story)


def test_of_an_endless_utterance_the_last_minute_is_sent():
    async def story(call):
        call.say(FIRST, bytes(2 * 8_000 * 65) + sound())
        assert await call.told(1) == [Final(FIRST, "a table for two")]
        assert call.emulator.heard[0].samples.tobytes().endswith(sound())
        assert len(call.emulator.heard[0].samples) == 60 * 8_000

    told(story)


def test_words_given_up_are_not_asked_for_any_more_and_the_next_come():
    async def story(call):
        call.say(FIRST)
        await until(lambda: call.emulator.heard)
        call.stream.give_up(FIRST)
        call.stream.give_up(UtteranceId(99))
        call.emulator._transcribe_s = 0
        call.say(SECOND)
        assert await call.told(1) == [Final(SECOND, "at eight")]
        assert [type(heard) for heard in call.heard] == [Final, Billed]

    told(story, transcribe_s=60)


def test_a_closed_stream_tells_nothing_and_leaves_no_request():
    async def story(call):
        call.say(FIRST)
        await until(lambda: call.emulator.heard)
        await asyncio.wait_for(call.stream.aclose(), PATIENCE_S)
        call.say(SECOND)
        await asyncio.sleep(0.05)
        assert call.heard == []
        assert len(call.emulator.heard) == 1
        await until(lambda: not any("transcribe" in task.get_name() for task in asyncio.all_tasks()))

    told(story, transcribe_s=60)


def test_a_warmed_connection_is_used():
    async def story(call):
        await call.provider.warm(STT)
        call.say(FIRST)
        await call.told(1)
        assert [seen.method for seen in call.emulator.seen] == ["GET", "POST"]
        assert len(call.emulator._runner.server.connections) == 1
        await call.emulator.inject(Fault.REFUSE)
        await call.provider.warm(STT)

    told(story)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.REFUSE, "connect"),
        (Fault.UNAUTHORISED, "unauthorised"),
        (Fault.THROTTLED, "throttled"),
        (Fault.SERVER_ERROR, "server"),
        (Fault.DROP, "dropped"),
        (Fault.HALF_CLOSE, "dropped"),
        (Fault.MALFORMED, "malformed"),
    ],
)
@pytest.mark.parametrize("after", [0, 2])
def test_every_failure_is_of_its_kind_and_costs_one_utterance(fault, kind, after):
    async def story(call):
        await call.emulator.inject(fault, after=after)
        call.say(FIRST)
        (failed,) = await call.told(1)
        assert isinstance(failed, Failed)
        assert (failed.utterance, failed.error.kind) == (FIRST, kind)
        assert KEY not in str(failed.error)
        if isinstance(failed.error, Throttled):
            assert failed.error.retry_after_s == 7
        assert len(call.emulator.seen) == (fault is not Fault.REFUSE)
        await call.emulator.heal()
        call.say(SECOND)
        assert isinstance((await call.told(2))[1], Final)

    told(story)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_slowness_is_waited_for_and_can_be_given_up(fault):
    async def story(call):
        await call.emulator.inject(fault)
        call.say(FIRST)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.told(1), 0.15)
        call.stream.give_up(FIRST)
        await call.emulator.heal()
        call.say(SECOND)
        (final,) = await call.told(1)
        assert final.utterance == SECOND

    told(story)


def test_what_is_unknown_does_no_harm():
    async def story(call):
        await call.emulator.inject(Fault.UNKNOWN_TYPE)
        call.say(FIRST)
        assert await call.told(1) == [Final(FIRST, "a table for two")]

    told(story)


def test_a_refusal_quotes_no_key():
    async def story(call):
        call.say(FIRST)
        (failed,) = await call.told(1)
        assert "Incorrect API key provided: ***" in str(failed.error)
        assert "sk-wrong" not in str(failed.error)

    told(story, key="sk-wrong")


def test_a_recording_the_service_does_not_like_is_rejected():
    async def story(call):
        call.say(FIRST, b"")
        (failed,) = await call.told(1)
        assert isinstance(failed.error, Rejected)

    told(story)


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        ({"body": b'{"text": 5}'}, "malformed"),
        ({"body": b"[]"}, "malformed"),
        ({"body": b"\xff\xfe"}, "malformed"),
        ({"body": b""}, "malformed"),
        ({"body": b'{"text": "a", "usage": ' + b"[" * 100_000}, "malformed"),
        ({"body": b'{"text": "' + b"a" * 1_000_000 + b'"}'}, "malformed"),
        ({"body": b'{"text": " a ", "usage": {"seconds": -1}, "x": 1}'}, [Final(FIRST, "a"), Billed(1.9)]),
        ({"body": b'{"text": "a", "usage": 7}'}, [Final(FIRST, "a"), Billed(1.9)]),
        ({"body": b"", "status": 307, "headers": {"location": "http://127.0.0.1:9/"}}, "rejected"),
        ({"body": b'{"detail": [{"input": "what was said"}]}', "status": 422}, "rejected"),
    ],
)
def test_a_server_out_of_order_is_not_believed(answer, heard):
    async def run():
        app = web.Application()

        async def reply(_):
            return web.Response(**answer)

        app.router.add_route("*", "/{path:.*}", reply)
        async with TestServer(app) as server:
            plugins = providers({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": str(server.make_url("/v1"))}, [])
            await plugins.get("openai").warm(STT)
            told = []
            call = Call(None, await plugins.get("openai").open(STT, told.append), told, None)
            call.say(FIRST)
            (answered,) = await call.told(1)
            if isinstance(heard, str):
                assert answered.error.kind == heard
                assert "what was said" not in str(answered.error)
            else:
                assert told == heard
            await call.stream.aclose()
            await plugins.aclose()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("environ", "stt", "setting"),
    [
        ({}, STT, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "file:///etc/passwd"}, STT, "OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": "k"}, Stt(endpoint="groq"), "stt.endpoint"),
        ({"OPENAI_API_KEY": "k"}, Stt(options={"beam": 1}), "stt.options.beam"),
        ({"OPENAI_API_KEY": "k"}, Stt(options={"prompt": 1}), "stt.options.prompt"),
    ],
)
def test_what_cannot_work_is_said_before_any_call(environ, stt, setting):
    with pytest.raises(Misconfigured) as raised:
        providers(environ, []).get("openai").check(stt)
    assert raised.value.setting == setting


def test_a_compatible_server_is_asked_where_the_operator_says_and_with_its_own_key(monkeypatch):
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "sk-ours")

    async def run(environ, key):
        stt = Stt(endpoint="speaches", model="Systran/faster-whisper-small", timeouts=PATIENT)
        async with OpenAiAudioEmulator(transcribe_s=0, ear=Lines(["at eight"]), key=key) as emulator:
            plugins = providers({"SPEACHES_BASE_URL": f"{emulator.url}/v1", "OPENAI_API_KEY": "sk-ours"} | environ, [])
            heard = []
            stream = await plugins.get("openai-compatible").open(stt, heard.append)
            call = Call(emulator, stream, heard, None)
            call.say(FIRST)
            assert await call.told(1) == [Final(FIRST, "at eight")]
            assert not [seen for seen in emulator.seen if "sk-ours" in str(seen.headers)]
            await call.stream.aclose()
            await plugins.aclose()

    asyncio.run(run({}, "no-key-needed"))
    asyncio.run(run({"SPEACHES_API_KEY": "k"}, "k"))


@pytest.mark.parametrize(
    ("stt", "setting"),
    [
        (Stt(model="m"), "stt.endpoint"),
        (Stt(endpoint="my-own", model="m"), "MY_OWN_BASE_URL"),
        (Stt(endpoint="bad", model="m"), "BAD_BASE_URL"),
        (Stt(endpoint="speaches"), "stt.model"),
    ],
)
def test_a_compatible_server_must_be_described(stt, setting):
    environ = {"SPEACHES_BASE_URL": "http://127.0.0.1:1/v1", "BAD_BASE_URL": "speaches"}
    with pytest.raises(Misconfigured) as raised:
        providers(environ, []).get("openai-compatible").check(stt)
    assert raised.value.setting == setting

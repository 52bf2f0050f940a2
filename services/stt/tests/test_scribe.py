"""ElevenLabs' Scribe, through the SDK against the emulator."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest

from trunkline.proto.agent import Stt, Timeouts
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import Misconfigured, ProviderError, Throttled
from trunkline.stt.provider import Failed, Final, Heard, Lost, Partial, SttStream
from trunkline.stt.providers.scribe import ScribeProvider
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers import Fault, Lines
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator

pytestmark = pytest.mark.integration

FRAME = 256
FIRST, SECOND = UtteranceId(1), UtteranceId(2)
LINES = ["A table for two.", "Tomorrow at eight, please."]
PATIENT = Timeouts(connect_ms=60_000)


def sound(samples: int, *, voice: bool) -> bytes:
    tone = (6_000 * np.sin(np.arange(samples) * 0.3)) if voice else np.zeros(samples)
    return tone.astype("<i2").tobytes()


class Call:
    """A caller at one stream, sixteen times faster than life."""

    def __init__(self, emulator: ElevenLabsEmulator) -> None:
        self.emulator = emulator
        self.heard: list[Heard] = []
        self.stream: SttStream | None = None
        self.pace = 0.002

    @property
    def ear(self) -> SttStream:
        assert self.stream is not None
        return self.stream

    async def hear(self, seconds: float, *, voice: bool) -> None:
        for _ in range(round(seconds * 8_000 / FRAME)):
            self.ear.push(sound(FRAME, voice=voice), voiced=voice)
            await asyncio.sleep(self.pace)

    async def utter(self, utterance: UtteranceId, *, seconds: float = 1.5, silence_s: float = 0.6) -> None:
        await self.hear(0.1, voice=True)
        self.ear.begin(utterance)
        await self.hear(seconds - 0.1, voice=True)
        await self.hear(silence_s, voice=False)
        self.ear.finish()

    @property
    def finals(self) -> list[tuple[int, str]]:
        return [(heard.utterance, heard.text) for heard in self.heard if isinstance(heard, Final)]

    @property
    def partials(self) -> list[tuple[int, str]]:
        return [(heard.utterance, heard.text) for heard in self.heard if isinstance(heard, Partial)]

    @property
    def lost(self) -> list[ProviderError]:
        return [heard.error for heard in self.heard if isinstance(heard, Lost)]


@asynccontextmanager
async def calling(
    fault: Fault | None = None,
    stt: Stt | None = None,
    key: str = "test-key",
    emulator: ElevenLabsEmulator | None = None,
) -> AsyncIterator[Call]:
    before = asyncio.all_tasks()
    async with emulator or ElevenLabsEmulator(ear=Lines(LINES), final_s=0.03) as server:
        if fault is not None:
            await server.inject(fault)
        provider = ScribeProvider({"ELEVENLABS_API_KEY": key, "ELEVENLABS_BASE_URL": server.url})
        call = Call(server)
        stt = msgspec.structs.replace(stt or Stt(), timeouts=PATIENT)
        provider.check(stt)
        await provider.warm_up()
        await provider.warm(stt)
        call.stream = await provider.open(stt, call.heard.append)
        try:
            yield call
        finally:
            await asyncio.wait_for(call.stream.aclose(), PATIENCE_S)
            told = len(call.heard)
            await provider.aclose()
            await until(lambda: not any("elevenlabs" in task.get_name() for task in asyncio.all_tasks() - before))
            assert len(call.heard) == told


def test_each_commit_brings_the_words_of_its_utterance() -> None:
    async def story() -> None:
        async with calling() as call:
            await call.utter(FIRST)
            await until(lambda: call.finals)
            await call.hear(0.5, voice=False)
            await call.utter(SECOND)
            await until(lambda: len(call.finals) == 2)
            assert call.finals == [(1, LINES[0]), (2, LINES[1])]
            assert {utterance for utterance, _ in call.partials} == {1, 2}
            assert all(LINES[utterance - 1].startswith(text) for utterance, text in call.partials)
            assert call.emulator.commits == 2

    asyncio.run(story())


def test_an_utterance_that_begins_before_the_last_is_answered_does_not_mix_with_it() -> None:
    async def story() -> None:
        async with calling() as call:
            call.emulator.final_s = 0.9
            await call.utter(FIRST)
            await until(lambda: call.emulator.commits == 1)
            call.emulator.final_s = 0.03
            await call.utter(SECOND)
            await until(lambda: len(call.finals) == 2)
            assert call.finals == [(1, LINES[0]), (2, LINES[1])]

    asyncio.run(story())


def test_what_is_said_before_there_is_a_connection_is_heard() -> None:
    async def story() -> None:
        async with calling() as call:
            call.ear.begin(FIRST)
            call.ear.push(sound(8_000, voice=True), voiced=True)
            call.ear.push(sound(4_000, voice=False), voiced=False)
            call.ear.finish()
            await until(lambda: call.finals)
            assert call.finals == [(1, LINES[0])]

    asyncio.run(story())


def test_of_what_waits_for_a_connection_the_last_ten_seconds_are_kept() -> None:
    async def story() -> None:
        async with calling() as call:
            call.ear.push(sound(8_000, voice=True), voiced=True)
            for _ in range(10):
                call.ear.push(sound(8_000, voice=False), voiced=False)
            call.ear.begin(FIRST)
            call.ear.push(sound(8_000, voice=True), voiced=True)
            call.ear.push(sound(4_000, voice=False), voiced=False)
            call.ear.finish()
            await until(lambda: call.finals)
            assert call.finals == [(1, LINES[0])]

    asyncio.run(story())


def test_given_up_words_do_not_come_and_the_next_ones_do() -> None:
    async def story() -> None:
        async with calling() as call:
            call.emulator.final_s = 0.7
            await call.utter(FIRST)
            call.ear.give_up(FIRST)
            await call.utter(SECOND)
            await until(lambda: call.finals)
            assert call.finals == [(2, LINES[1])]

    asyncio.run(story())


def test_what_scribe_commits_by_itself_belongs_to_the_utterance() -> None:
    async def story() -> None:
        emulator = ElevenLabsEmulator(ear=Lines([*LINES, "And thank you."]), final_s=0.03)
        emulator.longest_s = 2.0
        async with calling(emulator=emulator) as call:
            call.ear.begin(FIRST)
            await call.hear(1.2, voice=True)
            await call.hear(0.5, voice=False)
            await call.hear(1.2, voice=True)
            await call.hear(0.5, voice=False)
            call.ear.finish()
            await until(lambda: call.finals)
            assert call.finals == [(1, " ".join(LINES))]
            assert call.emulator.commits == 1

    asyncio.run(story())


def test_long_silence_is_committed_and_forgotten() -> None:
    async def story() -> None:
        async with calling() as call:
            call.pace = 0.0001
            await call.hear(32, voice=False)
            await until(lambda: call.emulator.commits == 1)
            call.pace = 0.002
            await call.utter(FIRST)
            await until(lambda: call.finals)
            assert call.finals == [(1, LINES[0])]

    asyncio.run(story())


def test_a_commit_that_comes_too_soon_fails_alone() -> None:
    async def story() -> None:
        async with calling() as call:
            call.ear.begin(FIRST)
            await call.hear(0.1, voice=False)
            call.ear.finish()
            await until(lambda: call.heard)
            assert isinstance(call.heard[0], Failed)
            assert isinstance(call.heard[0].error, Throttled)
            await call.utter(SECOND)
            await until(lambda: call.finals)
            assert call.finals == [(2, LINES[0])]

    asyncio.run(story())


def test_what_an_agent_asks_for_is_asked_for() -> None:
    stt = Stt(language="de-AT", keyterms=("Bella Vista", "Sophie"), options={"no_verbatim": True})

    async def story() -> None:
        async with calling(stt=stt) as call:
            await until(lambda: call.emulator.streams)
            assert call.emulator.streams[0] == [
                ("model_id", "scribe_v2_realtime"),
                ("audio_format", "ulaw_8000"),
                ("commit_strategy", "manual"),
                ("language_code", "de"),
                ("keyterms", "Bella Vista"),
                ("keyterms", "Sophie"),
                ("no_verbatim", "true"),
            ]
            assert call.emulator.seen[0].headers["xi-api-key"] == "test-key"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("stt", "setting"),
    [
        (Stt(model="scribe_v1"), "stt.model"),
        (Stt(language="german"), "stt.language"),
        (Stt(keyterms=("a" * 21,)), "stt.keyterms"),
        (Stt(keyterms=("a",) * 51), "stt.keyterms"),
        (Stt(options={"commit_strategy": "vad"}), "stt.options.commit_strategy"),
        (Stt(options={"no_verbatim": "yes"}), "stt.options.no_verbatim"),
    ],
)
def test_what_cannot_be_honoured_is_named_before_any_call(stt: Stt, setting: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        ScribeProvider({"ELEVENLABS_API_KEY": "x"}).check(stt)
    assert refused.value.setting == setting


def test_a_missing_key_is_named() -> None:
    with pytest.raises(Misconfigured) as refused:
        ScribeProvider({}).check(Stt())
    assert refused.value.setting == "ELEVENLABS_API_KEY"


KINDS = {
    Fault.REFUSE: "connect",
    Fault.UNAUTHORISED: "unauthorised",
    Fault.THROTTLED: "throttled",
    Fault.SERVER_ERROR: "server",
    Fault.DROP: "dropped",
    Fault.HALF_CLOSE: "dropped",
    Fault.MALFORMED: "malformed",
}


@pytest.mark.parametrize("fault", KINDS)
def test_a_stream_that_breaks_says_why_once_and_nothing_after(fault: Fault) -> None:
    async def story() -> None:
        async with calling(fault) as call:
            await call.utter(FIRST)
            await until(lambda: call.lost)
            told = len(call.heard)
            await call.utter(SECOND)
            assert len(call.heard) == told
            (error,) = call.lost
            assert error.kind == KINDS[fault]
            assert "test-key" not in str(error)
            if isinstance(error, Throttled):
                assert error.retry_after_s == call.emulator.retry_after_s

    asyncio.run(story())


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_a_silent_provider_is_waited_for_and_can_be_left(fault: Fault) -> None:
    async def story() -> None:
        async with calling(fault) as call:
            await call.utter(FIRST)
            await asyncio.sleep(0.1)
            assert not call.finals
            assert not call.lost

    asyncio.run(story())


def test_a_message_of_an_unknown_type_is_harmless() -> None:
    async def story() -> None:
        async with calling(Fault.UNKNOWN_TYPE) as call:
            await call.utter(FIRST)
            await until(lambda: call.finals)
            assert call.finals == [(1, LINES[0])]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("complaint", "kind"),
    [
        ("auth_error", "unauthorised"),
        ("quota_exceeded", "throttled"),
        ("rate_limited", "throttled"),
        ("queue_overflow", "throttled"),
        ("invalid_request", "rejected"),
        ("transcriber_error", "server"),
        ("error", "server"),
        ("session_time_limit_exceeded", "dropped"),
        ("error_of_a_new_kind", "rejected"),  # by the code it is closed with
    ],
)
def test_errors_of_the_stream_are_told_apart(complaint: str, kind: str) -> None:
    async def story() -> None:
        async with calling() as call:
            call.emulator.complaint = complaint
            await call.utter(FIRST)
            await until(lambda: call.lost)
            assert [error.kind for error in call.lost] == [kind]

    asyncio.run(story())


@pytest.mark.parametrize(
    "message",
    [
        [1],
        {"message_type": "partial_transcript", "text": 5},
        {"message_type": "partial_transcript", "text": "\ud800"},
        "\ud800",
    ],
)
def test_a_message_of_the_wrong_shape_cannot_be_read(message: object) -> None:
    class Hostile(ElevenLabsEmulator):
        def malformed(self) -> str:
            return json.dumps(message)

    async def story() -> None:
        async with calling(Fault.MALFORMED, emulator=Hostile(ear=Lines(LINES), final_s=0.03)) as call:
            await call.utter(FIRST)
            await until(lambda: call.lost)
            assert [error.kind for error in call.lost] == ["malformed"]

    asyncio.run(story())


def test_a_wrong_key_is_not_repeated() -> None:
    async def story() -> None:
        async with calling(key="wrong-key-of-mine") as call:
            await until(lambda: call.lost)
            assert call.lost[0].kind == "unauthorised"
            assert "wrong-key-of-mine" not in str(call.lost[0])

    asyncio.run(story())


def test_neither_key_nor_words_are_logged_whatever_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        async with calling() as call:
            await call.utter(FIRST)
            await until(lambda: call.finals)

    asyncio.run(story())
    assert not [line for line in caplog.messages if "test-key" in line or "table" in line]

"""Whole calls through a real edge, NATS and WebSocket; the workers are small ones that keep what they get."""

import asyncio
import gc
import json
import weakref

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from trunkline.edge.uplink import SOCKET_FRAMES
from trunkline.proto import subjects
from trunkline.proto.events import CallEnded, CallResumed, CallStarted, KeyPressed, StageAssigned, StageLost
from trunkline.proto.frame import Codec, Flag
from trunkline.proto.messages import (
    DigitPressed,
    HangUp,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Say,
    SpeechStarted,
    TurnEnded,
)
from trunkline.testing.nats_server import run_nats

from .conftest import CHUNK_MS, hears

pytestmark = pytest.mark.integration

START = {
    "accountSid": "AC1",
    "tracks": ["inbound"],
    "streamSid": "MZ" + "e" * 32,
    "callSid": "CA" + "e" * 32,
    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    "customParameters": {"agent": "restaurant"},
}


def whole(rig, call, recording):
    """Assert that every frame of the call reached STT once, in order and unchanged."""
    frames = rig.ears.frames[call]
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    heard = np.frombuffer(rig.ears.heard(call), np.int16)
    np.testing.assert_array_equal(heard, recording.left[: len(heard)])
    # 20 ms may have been under way when the line closed, and what does not fill a frame is never sent.
    assert len(frames) >= (len(recording.left) - 160) // 256
    return frames


def assigned_twice(rig, call, stage):
    """Stay until a second worker of `stage` has the call."""
    return lambda _: (
        [getattr(fact, "stage", "") for fact in rig.facts(call) if isinstance(fact, StageAssigned)].count(stage) == 2
    )


class TestAGoodCall:
    def test_brings_every_frame_to_stt_and_every_sentence_to_the_ear(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                call, recording = await rig.good_call(1.0, digits={10: "5"}, until=hears(400))
                await rig.until(lambda: rig.facts(call) and isinstance(rig.facts(call)[-1], CallEnded))
                frames = whole(rig, call, recording)
                assert not frames[-1].flags & Flag.REPLAY
                assert {(f.codec, f.sample_rate_hz, f.epoch) for f in frames} == {(Codec.MULAW, 8000, 1)}
                tone = recording.right[recording.right != 0]
                assert len(tone) == 8 * rig.voice.tone_ms
                assert recording.warnings == ()
                assert recording.close_code == 1000
                started, finished = rig.told(call, "playout")
                assert isinstance(started, PlayoutStarted)
                assert finished == PlayoutFinished(generation=1, utterance=1, heard_ms=400)
                assert [d.digit for d in rig.told(call, "dtmf")] == ["5"]
                assert all(stage.closed[call] == "customer-ended-call" for stage in (rig.ears, rig.voice, rig.mind))
                assert rig.facts(call)[-1].frames_in == len(recording.left) // 256
                return rig.facts(call)

        facts = asyncio.run(story())
        assert isinstance(facts[0], CallStarted)
        assert facts[0].agent == "restaurant"
        assert facts[0].direction == "inbound"
        assigned = [fact.stage for fact in facts if isinstance(fact, StageAssigned)]
        assert sorted(assigned[:2]) == ["stt", "tts"]
        assert assigned[2:] == ["brain"]
        assert [fact.digit for fact in facts if isinstance(fact, KeyPressed)] == ["5"]
        assert [type(fact) for fact in facts].count(CallEnded) == 1
        assert facts[-1].reason == "customer-ended-call"
        assert facts[-1].audio_ms_out == 400

    def test_that_a_worker_let_go_by_itself_is_given_to_a_worker_again(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(6.0, dial=dial))
                await rig.until(lambda: call in rig.ears.held and rig.ears.frames[call])
                await rig.ears.worker._let_go(call, "edge-lost", goes_on=False)
                await rig.until(lambda: any(isinstance(fact, StageLost) for fact in rig.facts(call)))
                _, recording = await placed
                whole_again = {frame.seq for frame in rig.ears.frames[call]}
                assert whole_again >= set(range(len(recording.left) // 256 - 1))
                assert [claim.epoch for claim in rig.ears.claims if claim.call == call] == [1, 2]

        asyncio.run(story())

    def test_is_over_only_when_a_tool_that_runs_on_has_been_waited_for(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.mind.slow_to_close_s = 2.5
                call, _ = await rig.good_call(0.2)
                await rig.until(lambda: isinstance(rig.facts(call)[-1], CallEnded))
                assert call in rig.mind.closed

        asyncio.run(story())

    def test_loses_nothing_that_was_said_while_a_worker_was_looked_for(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.ears.slow_s = 0.15
                call, recording = await rig.good_call(0.6)
                frames = whole(rig, call, recording)
                assert frames[0].flags & Flag.REPLAY
                assert not frames[-1].flags & Flag.REPLAY

        asyncio.run(story())

    @pytest.mark.parametrize(
        ("settings", "form"), [({}, (Codec.MULAW, 256)), ({"EDGE_MEDIA_CODEC": "pcm16"}, (Codec.PCM16, 512))]
    )
    def test_carries_audio_through_the_bus_as_it_came_or_decoded(self, edge_rig, settings, form):
        async def story():
            async with edge_rig(**settings) as rig:
                call, recording = await rig.good_call(0.3)
                frames = whole(rig, call, recording)
                assert {(frame.codec, len(frame.payload)) for frame in frames} == {form}

        asyncio.run(story())

    def test_can_be_hung_up_by_the_brain_but_not_by_an_old_one(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(20, dial=dial))
                await rig.until(lambda: rig.told(call, "playout"))
                await rig.bus.publish(subjects.control(call), HangUp(epoch=0, generation=1, reason="stale"))
                await rig.until(lambda: rig.metrics.fenced["control_epoch"] == 1)
                await rig.bus.publish(
                    subjects.control(call), HangUp(epoch=1, generation=1, reason="agent-said-goodbye")
                )
                _, recording = await placed
                assert (recording.close_code, recording.ended_by) == (1000, "application")
                await rig.until(lambda: isinstance(rig.facts(call)[-1], CallEnded))
                assert rig.facts(call)[-1].reason == "agent-said-goodbye"

        asyncio.run(story())

    def test_ends_when_it_has_lasted_as_long_as_its_agent_allows(self, edge_rig):
        async def story():
            async with edge_rig(max_duration_s=0.4) as rig:
                call, recording = await rig.good_call(20)
                assert recording.ended_by == "application"
                await rig.until(lambda: isinstance(rig.facts(call)[-1], CallEnded))
                assert rig.facts(call)[-1].reason == "exceeded-max-duration"

        asyncio.run(story())

    def test_twenty_at_once_are_all_whole(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                for call, recording in await asyncio.gather(*(rig.good_call(1.0, until=hears(400)) for _ in range(20))):
                    whole(rig, call, recording)
                    assert np.count_nonzero(recording.right) == 8 * rig.voice.tone_ms

        asyncio.run(story())


class TestAgentAudioThatGotLost:
    def test_is_asked_for_and_heard_in_its_place(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.voice.lost = {0, 2, 5}
                rig.mind.greeting = 2
                call, recording = await rig.good_call(1.5, until=hears(800))
                tone = recording.right[recording.right != 0]
                half = 8 * rig.voice.tone_ms
                assert len(tone) == 2 * half
                assert len(set(tone[:half])) == len(set(tone[half:])) == 1
                assert rig.voice.asked[0] == (1, 0)
                assert rig.metrics.dropped["audio_missed"] == 0
                finished = [said for said in rig.told(call, "playout") if isinstance(said, PlayoutFinished)]
                assert [said.heard_ms for said in finished] == [400, 400]

        asyncio.run(story())

    def test_is_given_up_where_it_is_not_sent_again_and_what_follows_is_heard(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.voice.lost, rig.voice.deaf = {1}, True
                _, recording = await rig.good_call(1.5, until=hears(400 - CHUNK_MS))
                assert np.count_nonzero(recording.right) == 8 * (rig.voice.tone_ms - CHUNK_MS)
                assert rig.voice.asked == [(1, 1)]
                assert rig.metrics.dropped["audio_missed"] == 1

        asyncio.run(story())


class TestAgentAudioOfAWrongRate:
    def test_is_not_heard_but_its_utterance_ends_and_the_log_complains_once(self, edge_rig, warnings_of):
        async def story():
            async with edge_rig() as rig:
                rig.voice.rate_hz = 16_000
                rig.mind.greeting = 2
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(20, dial=dial))
                await rig.until(lambda: len(rig.told(call, "playout")) == 2)
                await rig.bus.publish(subjects.control(call), HangUp(epoch=1, generation=1, reason="enough"))
                _, recording = await placed
                assert not recording.right.any()
                assert rig.told(call, "playout") == [
                    PlayoutFinished(generation=1, utterance=number, heard_ms=0) for number in (1, 2)
                ]
                assert rig.metrics.dropped["audio_rate"] == 8

        asyncio.run(story())
        assert warnings_of().count("agent audio of a wrong sample rate dropped") == 1


class TestAnInterrupt:
    def test_clears_the_carrier_before_anybody_is_told_and_voids_the_old_generation(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.voice.tone_ms = 3_000
                seen = []
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(
                    rig.good_call(
                        1.6,
                        dial=dial,
                        observe=seen.append,
                        until=lambda _: PlayoutFinished in [type(m) for m in rig.told(call, "playout")],
                    )
                )
                await rig.until(lambda: rig.told(call, "playout"))
                await asyncio.sleep(0.5)
                await rig.mind.interrupt(call, 2)
                await rig.until(lambda: any(isinstance(m, PlayoutCut) for m in rig.told(call, "playout")))
                # A late chunk of the old generation, and one of an old epoch, must not be heard.
                held = rig.voice.held[call]
                old = Say(epoch=1, generation=1, utterance=9, text="")
                await rig.voice.say(held, old)
                await rig.voice.say(held, Say(epoch=1, generation=2, utterance=8, text=""), epoch=0)
                rig.voice.tone_ms = 200
                await rig.mind.say(call, 2)
                _, recording = await placed
                cut = next(m for m in rig.told(call, "playout") if isinstance(m, PlayoutCut))
                assert (cut.total_ms, cut.complete) == (3_000, True)
                heard_ms = np.count_nonzero(recording.right == recording.right[recording.right != 0][0]) / 8
                assert abs(cut.heard_ms - heard_ms) <= 60
                assert {event.what for event in seen} >= {"clear", "mark-returned"}
                second = [m for m in rig.told(call, "playout") if m.utterance == 2]
                assert [type(m) for m in second] == [PlayoutStarted, PlayoutFinished]
                values = set(np.unique(recording.right)) - {0}
                assert len(values) == 2  # the tones of utterances 1 and 2, nothing else
                assert rig.metrics.fenced["audio_old-generation"] == 30
                assert rig.metrics.fenced["audio_epoch"] == 30
                assert not [m for m in rig.told(call, "playout") if m.utterance in (8, 9)]

        asyncio.run(story())

    def test_of_an_old_brain_is_nothing(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.voice.tone_ms = 600
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(1.0, dial=dial, until=hears(600)))
                await rig.until(lambda: rig.told(call, "playout"))
                await rig.mind.interrupt(call, 5, epoch=0)
                _, recording = await placed
                assert np.count_nonzero(recording.right) == 8 * 600
                assert rig.metrics.fenced["interrupt_epoch"] == 1

        asyncio.run(story())


class TestWorkers:
    @pytest.mark.parametrize("missing", ["stt", "tts", "brain"])
    def test_a_call_without_one_of_them_ends_at_once_and_says_which(self, edge_rig, missing):
        async def story():
            there = {"stt", "tts", "brain"} - {missing}
            async with edge_rig(workers=there) as rig:
                call, recording = await rig.good_call(5)
                assert (recording.ended_by, recording.close_reason) == ("application", f"no-{missing}-worker")
                await rig.until(lambda: isinstance(rig.facts(call)[-1], CallEnded))
                assert rig.facts(call)[-1].reason == f"no-{missing}-worker"
                assert rig.facts(call)[-1].duration_s < 1
                for stage in (rig.ears, rig.voice, rig.mind):
                    assert call not in stage.held or stage.closed[call]

        asyncio.run(story())

    def test_a_refusal_for_good_ends_the_call(self, edge_rig, unservable):
        async def story():
            async with edge_rig() as rig:
                rig.voice.refusal = unservable("no such voice")
                _, recording = await rig.good_call(5)
                assert recording.close_reason == "no-tts-worker"
                assert len(rig.voice.claims) == 1

        asyncio.run(story())

    def test_a_refusal_that_may_be_retried_is_with_higher_epochs(self, edge_rig, unservable):
        async def story():
            async with edge_rig() as rig:
                rig.voice.refusal = unservable("full", retry=True)
                await rig.good_call(5)
                assert [claim.epoch for claim in rig.voice.claims] == [1, 2, 3, 4, 5, 6]

        asyncio.run(story())

    def test_one_that_answers_too_late_is_let_go_again(self, edge_rig):
        async def story():
            async with edge_rig(EDGE_CLAIM_TIMEOUT_MS="50") as rig:
                rig.mind.slow_s = 0.2
                dial = rig.dial()
                call = rig.call_of(dial)
                _, recording = await rig.good_call(5, dial=dial)
                assert recording.close_reason == "no-brain-worker"
                await rig.until(lambda: rig.mind.worker.calls == 0 and call in rig.mind.closed)
                assert rig.metrics.claims["brain_unanswered"] >= 3

        asyncio.run(story())

    def test_a_silent_stt_is_replaced_and_hears_again_what_was_not_committed(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(2.4, dial=dial, until=assigned_twice(rig, call, "stt")))
                await rig.until(lambda: len(rig.ears.frames[call]) > 12)
                ended = TurnEnded(epoch=1, utterance=0, committed=9, speech_ended_at=0.1, endpoint_at=0.2, final_at=0.2)
                await rig.bus.publish(subjects.speech(call), ended)
                second = type(rig.ears)(rig.bus)
                await second.start()
                await rig.ears.fall_silent()
                _, recording = await placed
                await rig.until(lambda: isinstance(rig.facts(call)[-1], CallEnded))
                frames = second.frames[call]
                assert [f.seq for f in frames] == list(range(10, 10 + len(frames)))
                assert {f.epoch for f in frames} == {2}
                assert frames[0].flags & Flag.REPLAY
                heard = np.frombuffer(second.heard(call), np.int16)
                np.testing.assert_array_equal(heard, recording.left[2560 : 2560 + len(heard)])
                lost = [fact for fact in rig.facts(call) if isinstance(fact, StageLost)]
                assert [(fact.stage, fact.reason) for fact in lost] == [("stt", "silent")]
                await second.worker.stop()

        asyncio.run(story())

    def test_a_silent_brain_that_nobody_can_replace_ends_the_call(self, edge_rig):
        async def story():
            async with edge_rig(EDGE_RECLAIM_S="0.5") as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(5, dial=dial))
                await rig.until(lambda: rig.told(call, "playout"))
                await rig.mind.fall_silent()
                _, recording = await placed
                assert recording.close_reason == "no-brain-worker"

        asyncio.run(story())

    def test_a_brain_that_takes_over_is_told_what_the_last_one_may_have_missed(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(4, dial=dial, until=assigned_twice(rig, call, "brain")))
                await rig.until(lambda: rig.told(call, "playout"))
                heard = SpeechStarted(epoch=1, utterance=40, onset_at=1.0)
                await rig.bus.publish(subjects.speech(call), heard)
                await rig.until(lambda: rig.told(call, "speech"))
                second = type(rig.mind)(rig.bus)
                second.greeting = 0
                await second.start()
                await rig.mind.fall_silent()
                await placed
                (claim,) = [claim for claim in second.claims if claim.call == call]
                assert claim.epoch == 2
                assert claim.recap.speech == (heard,)
                assert [(said.text, said.fate) for said in claim.recap.said] == [("la la la", "finished")]
                await second.worker.stop()

        asyncio.run(story())


class TestTheBus:
    def test_away_for_a_moment_costs_a_call_neither_a_frame_nor_a_worker(self, edge_rig):
        async def story():
            with run_nats() as server:
                async with edge_rig(NATS_URL=server.url) as rig:
                    dial = rig.dial()
                    call = rig.call_of(dial)
                    placed = asyncio.create_task(rig.good_call(4.0, dial=dial))
                    await rig.until(lambda: len(rig.ears.frames[call]) > 12)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.5)
                    server.start()
                    _, recording = await placed
                    assert recording.ended_by == "caller"
                    frames = rig.ears.frames[call]
                    seqs = [frame.seq for frame in frames]
                    # What the dying server had taken may have been passed on or not, so it is sent again.
                    assert list(dict.fromkeys(seqs)) == list(range(seqs[-1] + 1))
                    assert len(seqs) - len(set(seqs)) <= SOCKET_FRAMES
                    assert len(rig.ears.claims) == len(rig.voice.claims) == len(rig.mind.claims) == 1

        asyncio.run(story())


class TestTheEnd:
    def test_of_a_draining_edge_comes_after_the_last_call_and_its_port_is_free_at_once(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(1.2, dial=dial))
                await rig.until(lambda: rig.told(call, "playout"))
                draining = asyncio.create_task(rig.edge.drain())
                await asyncio.sleep(0.1)
                assert not draining.done()
                with pytest.raises(OSError, match=r"refused|Connect"):
                    await asyncio.open_connection("127.0.0.1", rig.port)
                _, recording = await placed
                whole(rig, call, recording)
                assert recording.ended_by == "caller"
                async with asyncio.timeout(2):
                    await draining

        asyncio.run(story())

    def test_of_one_edge_can_be_the_beginning_of_another_on_the_same_port(self, edge_rig):
        async def story():
            async with edge_rig() as old:
                placed = asyncio.create_task(old.good_call(4.0))
                await old.until(lambda: old.mind.held)
                async with edge_rig(workers=(), EDGE_PORT=str(old.port)) as new:
                    draining = asyncio.create_task(old.edge.drain())
                    await asyncio.sleep(0.05)
                    fresh, recording = await new.good_call(0.4)
                    assert recording.ended_by == "caller"
                    await new.until(lambda: isinstance(new.facts(fresh)[-1], CallEnded))
                    assert new.facts(fresh)[-1].frames_in == len(recording.left) // 256
                    call, recording = await placed
                    await draining
                    assert recording.ended_by == "caller"
                    assert recording.streams == 2  # the new edge has the call from its first quiet moment on
                    resumed = [fact for fact in new.facts(call) if isinstance(fact, CallResumed)]
                    assert [(fact.edge, fact.planned) for fact in resumed] == [(new.edge.exchange.edge, True)]
                    await old.until(lambda: isinstance(old.facts(call)[-1], CallEnded))
                    assert sum(isinstance(fact, CallStarted | CallEnded) for fact in old.facts(call)) == 2

        asyncio.run(story())

    def test_of_a_stopping_edge_ends_its_calls_and_stores_their_ends(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(5, dial=dial))
                await rig.until(lambda: rig.told(call, "playout"))
                await rig.edge.exchange.stop()
                _, recording = await placed
                assert recording.close_code == 1013
                assert rig.facts(call)[-1].reason == "edge-stopped"
                rig.edge.exchange.stop = lambda: asyncio.sleep(0)

        asyncio.run(story())

    def test_is_not_followed_by_a_call_that_had_connected_before_it(self, edge_rig, warnings_of):
        async def story():
            async with edge_rig() as rig:
                async with connect(rig.ws, compression=None) as socket:
                    await rig.edge.exchange.stop()
                    rig.edge.exchange.stop = lambda: asyncio.sleep(0)
                    await socket.send(json.dumps({"event": "start", "streamSid": START["streamSid"], "start": START}))
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
                    assert (socket.close_code, socket.close_reason) == (1013, "the edge is stopping")
                assert rig.metrics.refused == {"edge-stopping": 1}
                assert not rig.metrics.ended

        asyncio.run(story())
        assert "fact after the end of the log" not in warnings_of("trunkline.bus")

    def test_begins_with_letting_nobody_in(self, edge_rig):
        async def refused(rig):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            except OSError:
                return True
            writer.close()
            return False

        async def story():
            async with edge_rig() as rig:
                rig.edge.exchange._empty.clear()  # as while a call takes its time to end
                stopping = asyncio.create_task(rig.edge.stop())
                rig.edge.stop = lambda: asyncio.sleep(0)
                async with asyncio.timeout(2):
                    while not await refused(rig):
                        await asyncio.sleep(0.01)
                assert not stopping.done()
                rig.edge.exchange._empty.set()
                await stopping

        asyncio.run(story())

    def test_of_a_digit_is_told_in_time(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                call, _ = await rig.good_call(0.6, digits={5: "1", 6: "#"})
                assert [type(m) for m in rig.told(call, "dtmf")] == [DigitPressed, DigitPressed]

        asyncio.run(story())


class TestACallThatIsOver:
    def test_is_freed_without_the_collector(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                placed = asyncio.create_task(rig.good_call(0.5, dial=dial))
                await rig.until(lambda: rig.call_of(dial) in rig.edge.exchange.calls)
                call = rig.edge.exchange.calls[rig.call_of(dial)]
                heavy = [weakref.ref(part) for part in (call._ring, call._uplink, call._downlink, call._story)]
                await placed
                await call.gone.wait()
                call.forget()
                assert call.is_over
                await rig.until(lambda: not any(part() for part in heavy))

        gc.disable()
        try:
            asyncio.run(story())
        finally:
            gc.enable()

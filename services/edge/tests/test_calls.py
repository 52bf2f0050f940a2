"""Whole calls through a real edge, NATS and WebSocket; the workers are small ones that keep what they get."""

import asyncio
import gc
import json
import weakref
from functools import partial

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from trunkline.edge import arrivals
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
from trunkline.testing.patience import PATIENCE_S, until

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


async def whole(rig, call, recording):
    """Assert that every frame of the call reaches STT once, in order and unchanged."""
    frames = rig.ears.frames[call]
    # 20 ms may have been under way when the line closed, and what does not fill a frame is never sent.
    await until(lambda: len(frames) >= (len(recording.left) - 160) // 256)
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    heard = np.frombuffer(rig.ears.heard(call), np.int16)
    np.testing.assert_array_equal(heard, recording.left[: len(heard)])
    return frames


def assigned(rig, call, stage, times):
    """Stay until `stage` has been given to a worker so often."""
    return lambda _: (
        [getattr(fact, "stage", "") for fact in rig.facts(call) if isinstance(fact, StageAssigned)].count(stage)
        >= times
    )


async def until_its_next_line(rig):
    """Place a call that lasts until it is served on a second line; return it and its end, once it is served at all."""
    dial = rig.dial()
    call = rig.call_of(dial)
    placed = asyncio.create_task(rig.good_call(dial=dial, until=assigned(rig, call, "brain", 2)))
    await until(lambda: rig.mind.held)
    return call, placed


async def refused(rig):
    """Whether nobody is let in."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    except OSError:
        return True
    writer.close()
    return False


class TestAGoodCall:
    def test_brings_every_frame_to_stt_and_every_sentence_to_the_ear(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                call, recording = await rig.good_call(1.0, digits={10: "5"}, until=hears(400))
                end = await rig.end_of(call)
                frames = await whole(rig, call, recording)
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
                assert end.frames_in == len(recording.left) // 256
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
                placed = asyncio.create_task(rig.good_call(dial=dial, until=assigned(rig, call, "stt", 2)))
                await until(lambda: call in rig.ears.held and rig.ears.frames[call])
                await rig.ears.worker._let_go(call, "edge-lost", goes_on=False)
                _, recording = await placed
                assert any(isinstance(fact, StageLost) for fact in rig.facts(call))
                every = set(range(len(recording.left) // 256 - 1))
                await until(lambda: {frame.seq for frame in rig.ears.frames[call]} >= every)
                assert [claim.epoch for claim in rig.ears.claims if claim.call == call] == [1, 2]

        asyncio.run(story())

    def test_is_over_only_when_a_tool_that_runs_on_has_been_waited_for(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.mind.slow_to_close_s = 2.5
                dial = rig.dial()
                call = rig.call_of(dial)
                await rig.good_call(0.2, dial=dial, until=assigned(rig, call, "brain", 1))
                await rig.end_of(call)
                assert call in rig.mind.closed

        asyncio.run(story())

    def test_loses_nothing_that_was_said_while_a_worker_was_looked_for(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.ears.may_open.clear()
                dial = rig.dial()
                call = rig.call_of(dial)

                def hears_as_it_is_said(_):
                    return any(not frame.flags & Flag.REPLAY for frame in rig.ears.frames[call])

                placed = asyncio.create_task(rig.good_call(digits={8: "5"}, dial=dial, until=hears_as_it_is_said))
                await until(lambda: any(isinstance(fact, KeyPressed) for fact in rig.facts(call)))
                rig.ears.may_open.set()
                _, recording = await placed
                frames = await whole(rig, call, recording)
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
                frames = await whole(rig, call, recording)
                assert {(frame.codec, len(frame.payload)) for frame in frames} == {form}

        asyncio.run(story())

    def test_can_be_hung_up_by_the_brain_but_not_by_an_old_one(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(PATIENCE_S, dial=dial))
                await until(lambda: rig.told(call, "playout"))
                await rig.bus.publish(subjects.control(call), HangUp(epoch=0, generation=1, reason="stale"))
                await until(lambda: rig.metrics.fenced["control_epoch"] == 1)
                await rig.bus.publish(
                    subjects.control(call), HangUp(epoch=1, generation=1, reason="agent-said-goodbye")
                )
                _, recording = await placed
                assert (recording.close_code, recording.ended_by) == (1000, "application")
                assert (await rig.end_of(call)).reason == "agent-said-goodbye"

        asyncio.run(story())

    def test_ends_when_it_has_lasted_as_long_as_its_agent_allows(self, edge_rig):
        async def story():
            async with edge_rig(max_duration_s=0.4) as rig:
                call, recording = await rig.good_call(PATIENCE_S)
                assert recording.ended_by == "application"
                assert (await rig.end_of(call)).reason == "exceeded-max-duration"

        asyncio.run(story())

    def test_twenty_at_once_are_all_whole(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                for call, recording in await asyncio.gather(*(rig.good_call(1.0, until=hears(400)) for _ in range(20))):
                    await whole(rig, call, recording)
                    assert np.count_nonzero(recording.right) == 8 * rig.voice.tone_ms

        asyncio.run(story())


class TestAgentAudioThatGotLost:
    def test_is_asked_for_and_heard_in_its_place(self, edge_rig, monkeypatch):
        monkeypatch.setattr(arrivals, "MISSED_S", PATIENCE_S)

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
                await until(lambda: rig.voice.asked)
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
                placed = asyncio.create_task(rig.good_call(PATIENCE_S, dial=dial))
                await until(lambda: len(rig.told(call, "playout")) == 2)
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
                rig.voice.tone_ms = 20_000
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
                await until(lambda: rig.told(call, "playout"))
                await until(lambda: rig.edge.exchange.calls[call]._downlink.audio_ms == 20_000)
                await asyncio.sleep(0.5)
                await rig.mind.interrupt(call, 2)
                await until(lambda: any(isinstance(m, PlayoutCut) for m in rig.told(call, "playout")))
                # A late chunk of the old generation, and one of an old epoch, must not be heard.
                held = rig.voice.held[call]
                old = Say(epoch=1, generation=1, utterance=9, text="")
                await rig.voice.say(held, old)
                await rig.voice.say(held, Say(epoch=1, generation=2, utterance=8, text=""), epoch=0)
                rig.voice.tone_ms = 200
                await rig.mind.say(call, 2)
                _, recording = await placed
                cut = next(m for m in rig.told(call, "playout") if isinstance(m, PlayoutCut))
                assert (cut.total_ms, cut.complete) == (20_000, True)
                heard_ms = np.count_nonzero(recording.right == recording.right[recording.right != 0][0]) / 8
                assert abs(cut.heard_ms - heard_ms) <= 60 + recording.latest_ms
                assert {event.what for event in seen} >= {"clear", "mark-returned"}
                second = [m for m in rig.told(call, "playout") if m.utterance == 2]
                assert [type(m) for m in second] == [PlayoutStarted, PlayoutFinished]
                values = set(np.unique(recording.right)) - {0}
                assert len(values) == 2  # the tones of utterances 1 and 2, nothing else
                assert rig.metrics.fenced["audio_old-generation"] == 200
                assert rig.metrics.fenced["audio_epoch"] == 200
                assert not [m for m in rig.told(call, "playout") if m.utterance in (8, 9)]

        asyncio.run(story())

    def test_of_an_old_brain_is_nothing(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                rig.voice.tone_ms = 600
                dial = rig.dial()
                call = rig.call_of(dial)

                def interrupted(speaker):
                    return rig.metrics.fenced["interrupt_epoch"] == 1 and hears(600)(speaker)

                placed = asyncio.create_task(rig.good_call(1.0, dial=dial, until=interrupted))
                await until(lambda: rig.told(call, "playout"))
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
            async with edge_rig(workers=there, EDGE_RECLAIM_S="300") as rig:
                call, recording = await rig.good_call(PATIENCE_S)
                assert (recording.ended_by, recording.close_reason) == ("application", f"no-{missing}-worker")
                assert (await rig.end_of(call)).reason == f"no-{missing}-worker"
                # One that was being asked when the call ended is let go behind it.
                await until(
                    lambda: all(stage.held.keys() == stage.closed.keys() for stage in (rig.ears, rig.voice, rig.mind))
                )

        asyncio.run(story())

    def test_a_refusal_for_good_ends_the_call(self, edge_rig, unservable):
        async def story():
            async with edge_rig() as rig:
                rig.voice.refusal = unservable("no such voice")
                _, recording = await rig.good_call(PATIENCE_S)
                assert recording.close_reason == "no-tts-worker"
                assert len(rig.voice.claims) == 1

        asyncio.run(story())

    def test_a_refusal_that_may_be_retried_is_with_higher_epochs(self, edge_rig, unservable):
        async def story():
            async with edge_rig() as rig:
                rig.voice.refusal = unservable("full", retry=True)
                await rig.good_call(PATIENCE_S)
                assert [claim.epoch for claim in rig.voice.claims] == [1, 2, 3, 4, 5, 6]

        asyncio.run(story())

    def test_one_that_answers_too_late_is_let_go_again(self, edge_rig):
        async def story():
            async with edge_rig(EDGE_CLAIM_TIMEOUT_MS="300") as rig:
                rig.mind.may_open.clear()
                call, recording = await rig.good_call(PATIENCE_S)
                assert recording.close_reason == "no-brain-worker"
                rig.mind.may_open.set()
                await until(lambda: rig.mind.worker.calls == 0 and call in rig.mind.closed)
                assert rig.metrics.claims["brain_unanswered"] >= 3

        asyncio.run(story())

    def test_a_silent_stt_is_replaced_and_hears_again_what_was_not_committed(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(2.4, dial=dial, until=assigned(rig, call, "stt", 2)))
                await until(lambda: len(rig.ears.frames[call]) > 12)
                ended = TurnEnded(epoch=1, utterance=0, committed=9, speech_ended_at=0.1, endpoint_at=0.2, final_at=0.2)
                await rig.bus.publish(subjects.speech(call), ended)
                second = type(rig.ears)(rig.bus)
                await second.start()
                await rig.ears.fall_silent()
                _, recording = await placed
                await rig.end_of(call)
                frames = second.frames[call]
                await until(lambda: frames)
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
                placed = asyncio.create_task(rig.good_call(PATIENCE_S, dial=dial))
                await until(lambda: rig.told(call, "playout"))
                await rig.mind.fall_silent()
                _, recording = await placed
                assert recording.close_reason == "no-brain-worker"

        asyncio.run(story())

    def test_a_brain_that_takes_over_is_told_what_the_last_one_may_have_missed(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(4, dial=dial, until=assigned(rig, call, "brain", 2)))
                await until(lambda: len(rig.told(call, "playout")) == 2)
                heard = SpeechStarted(epoch=1, utterance=40, onset_at=1.0)
                await rig.bus.publish(subjects.speech(call), heard)
                await until(lambda: rig.told(call, "speech"))
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
                    frames = rig.ears.frames[call]
                    placed = asyncio.create_task(rig.good_call(4.0, dial=dial, until=lambda _: len(frames) > 100))
                    await until(lambda: len(frames) > 12)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.5)
                    server.start()
                    _, recording = await placed
                    assert recording.ended_by == "caller"
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
                enough = asyncio.Event()
                placed = asyncio.create_task(rig.good_call(dial=dial, until=lambda _: enough.is_set()))
                await until(lambda: rig.told(call, "playout"))
                draining = asyncio.create_task(rig.edge.drain())
                await until(lambda: refused(rig))
                assert not draining.done()
                enough.set()
                _, recording = await placed
                await whole(rig, call, recording)
                assert recording.ended_by == "caller"
                await asyncio.wait_for(draining, PATIENCE_S)

        asyncio.run(story())

    def test_of_one_edge_can_be_the_beginning_of_another_on_the_same_port(self, edge_rig):
        async def story():
            async with edge_rig() as old:
                call, placed = await until_its_next_line(old)
                async with edge_rig(workers=(), EDGE_PORT=str(old.port)) as new:
                    draining = asyncio.create_task(old.edge.drain())
                    await until(lambda: old.edge.exchange.room() == "draining")
                    fresh, recording = await new.good_call(0.4)
                    assert recording.ended_by == "caller"
                    assert (await new.end_of(fresh)).frames_in == len(recording.left) // 256
                    _, recording = await placed
                    await draining
                    assert recording.ended_by == "caller"
                    assert recording.streams == 2  # the new edge has the call from its first quiet moment on
                    resumed = [fact for fact in new.facts(call) if isinstance(fact, CallResumed)]
                    assert [(fact.edge, fact.planned) for fact in resumed] == [(new.edge.exchange.edge, True)]
                    await old.end_of(call)
                    assert sum(isinstance(fact, CallStarted | CallEnded) for fact in old.facts(call)) == 2

        asyncio.run(story())

    def test_of_one_edge_does_not_end_a_call_for_which_nobody_has_room_on_its_next_line_at_first(self, edge_rig):
        async def story():
            async with edge_rig() as old:
                _, placed = await until_its_next_line(old)
                async with edge_rig(workers=(), EDGE_PORT=str(old.port)) as new:
                    await old.voice.take_no_more()
                    draining = asyncio.create_task(old.edge.drain())
                    await until(lambda: new.metrics.claims["tts_no_worker"] >= 2)
                    await old.voice.take_more()
                    _, recording = await placed
                    await draining
                    assert (recording.ended_by, recording.streams) == ("caller", 2)

        asyncio.run(story())

    def test_of_a_stopping_edge_ends_its_calls_and_stores_their_ends(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                call = rig.call_of(dial)
                placed = asyncio.create_task(rig.good_call(PATIENCE_S, dial=dial))
                await until(lambda: rig.told(call, "playout"))
                await rig.edge.exchange.stop()
                _, recording = await placed
                assert recording.close_code == 1013
                assert (await rig.end_of(call)).reason == "edge-stopped"
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
        async def story():
            async with edge_rig() as rig:
                rig.edge.exchange._empty.clear()  # as while a call takes its time to end
                stopping = asyncio.create_task(rig.edge.stop())
                rig.edge.stop = lambda: asyncio.sleep(0)
                await until(lambda: refused(rig))
                assert not stopping.done()
                rig.edge.exchange._empty.set()
                await stopping

        asyncio.run(story())

    def test_of_a_digit_is_told_in_time(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                told = partial(rig.told, rig.call_of(dial), "dtmf")
                await rig.good_call(0.6, digits={5: "1", 6: "#"}, dial=dial, until=lambda _: len(told()) == 2)
                assert [type(message) for message in told()] == [DigitPressed, DigitPressed]

        asyncio.run(story())


class TestACallThatIsOver:
    def test_is_freed_without_the_collector(self, edge_rig):
        async def story():
            async with edge_rig() as rig:
                dial = rig.dial()
                placed = asyncio.create_task(rig.good_call(0.5, dial=dial))
                await until(lambda: rig.call_of(dial) in rig.edge.exchange.calls)
                call = rig.edge.exchange.calls[rig.call_of(dial)]
                heavy = [weakref.ref(part) for part in (call._ring, call._uplink, call._downlink, call._story)]
                await placed
                await call.gone.wait()
                call.forget()
                assert call.is_over
                await until(lambda: not any(part() for part in heavy))

        gc.disable()
        try:
            asyncio.run(story())
        finally:
            gc.enable()

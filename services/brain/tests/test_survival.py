"""Two brains on a real nats-server: one dies, or is believed to be dead, and the other goes on with its call."""

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from urllib.parse import urlsplit

import msgspec
import pytest

from trunkline.brain import delivery, keeper, session
from trunkline.brain.imports import Imported
from trunkline.brain.llm import Finished, LlmCapabilities, TextDelta, ToolAnswered, ToolCall
from trunkline.brain.service import Brain
from trunkline.brain.settings import BrainSettings
from trunkline.brain.snapshot import decode
from trunkline.brain.tools import ENTRY_POINTS
from trunkline.bus import Bus, CallStore, EventLog, Heartbeat, calls, event_reader, recorded
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent, Llm, Rule, Script, Timeouts, Tool, TurnTaking
from trunkline.proto.events import AgentSpoke, CallStarted, StageSettled
from trunkline.proto.ids import call_id_of, new_worker_id
from trunkline.proto.messages import (
    Claim,
    Claimed,
    Disowned,
    FinalTranscript,
    HangUp,
    PlayoutFinished,
    PlayoutStarted,
    Recap,
    Refused,
    Release,
    Say,
    SpeechStarted,
    TurnEnded,
    Uttered,
    VoiceChanged,
)
from trunkline.proto.records import brain_key
from trunkline.runtime.process import Chassis
from trunkline.runtime.settings import BaseSettings
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.tcp_proxy import run_proxy

pytestmark = pytest.mark.integration

_numbers = itertools.count()
RULES = (
    Rule(hear="book", tool="book", say="One moment please."),
    Rule(after="book", where={"failed": "yes"}, say="I do not know whether it is booked."),
    Rule(after="book", say="It is booked."),
    Rule(hear="hello", say="Good morning to you. What can I do for you today?"),
    Rule(hear="bye", say="Goodbye. [END_CALL]"),
)


def agent_of(*, repeatable=False, provider="script"):
    return Agent(
        name="test",
        greeting="Welcome.",
        resumed="The line was gone.",
        llm=Llm(provider=provider, timeouts=Timeouts(first_ms=5_000), script=Script(rules=RULES, fallback="Pardon?")),
        tools=(Tool(name="book", description="Books.", repeatable=repeatable),),
        turns=TurnTaking(fillers=(), reprompt_after_s=120),
    )


class Booking:
    """A tool that takes as long as it is let."""

    def __init__(self):
        self.keys = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def run(self, arguments, call):
        del arguments
        self.keys.append(call.idempotency_key)
        self.begun.set()
        await self.may_end.wait()
        return {"ok": True}


class Thinker:
    """A model that wants the tool, once it is let."""

    capabilities = LlmCapabilities(usage=False)

    def __init__(self):
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    def check(self, llm, tools):
        pass

    async def warm(self, llm):
        pass

    async def stream(self, request):
        if isinstance(request.messages[-1], ToolAnswered):
            yield TextDelta("It is booked.")
            yield Finished()
            return
        self.asked.set()
        await self.may_answer.wait()
        yield ToolCall(id="t1", name="book", arguments="{}")
        yield Finished(reason="tool-calls")

    async def aclose(self):
        pass


class Call:
    """One call as its edge sees it: what is said is heard at once, unless the line holds it back."""

    def __init__(self, bus, edge, agent):
        self.bus, self.edge, self.agent = bus, edge, agent
        self.call = call_id_of("test", str(next(_numbers)))
        self.epoch = 0
        self.said, self.orders, self.speech = {}, [], []
        self.plays = True
        self.seq = 0
        self._waiting = asyncio.Queue()
        self._news = asyncio.Condition()

    async def watch(self):
        await self.bus.subscribe(f"call.{self.call}.*", lambda *message: self._waiting.put_nowait(message))
        await self.bus.flush()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self):
        while True:
            await self._on_story(*await self._waiting.get())

    async def _on_story(self, subject, data):
        topic = subjects.last_token(subject)
        if topic == "speak":
            await self._on_say(codec.decode(codec.SPEAK, data))
        elif topic in {"interrupt", "control"}:
            decoder = codec.INTERRUPT if topic == "interrupt" else codec.CONTROL
            self.orders.append(codec.decode(decoder, data))
        async with self._news:
            self._news.notify_all()

    async def _on_say(self, say):
        if say.epoch < self.epoch:
            return
        self.orders.append(say)
        known = self.said.get(say.utterance)
        text = (known.text if known else "") + say.text
        ids = {"generation": say.generation, "utterance": say.utterance}
        self.said[say.utterance] = Uttered(**ids, text=text, open=say.goes_on)
        if self.plays and not say.goes_on:
            await self.play(say.utterance)

    async def play(self, utterance):
        one = self.said[utterance]
        ids = {"generation": one.generation, "utterance": one.utterance}
        self.said[utterance] = Uttered(
            **ids, text=one.text, fate="finished", complete=True, queued_ms=900, heard_ms=900
        )
        await self.tell("playout", PlayoutStarted(**ids, synthesised_at=1.0, sent_at=1.0))
        await self.tell("playout", PlayoutFinished(**ids, heard_ms=900))

    async def tell(self, topic, message):
        await self.bus.publish(f"call.{self.call}.{topic}", message)

    async def says(self, text):
        self.seq += 100
        ids = {"epoch": 1, "utterance": self.seq}
        final = FinalTranscript(**ids, text=text, committed=self.seq, onset_at=1.0, offset_at=1.0)
        ended = TurnEnded(**ids, speech_ended_at=1.0, endpoint_at=1.0, final_at=1.0)
        for message in (SpeechStarted(**ids, onset_at=1.0), final, ended):
            self.speech.append(message)
            await self.tell("speech", message)

    async def claim(self, worker, *, recap=False, line="", epoch=None):
        self.epoch = epoch or self.epoch + 1
        claim = Claim(
            call=self.call,
            stage="brain",
            epoch=self.epoch,
            edge=self.edge,
            agent=self.agent,
            generation=max((one.generation for one in self.said.values()), default=0),
            recap=Recap(speech=tuple(self.speech), said=tuple(self.said.values())) if recap else None,
            line=line,
        )
        reply = await self.bus.request(subjects.claim_of("brain", worker), claim, PATIENCE_S)
        return codec.decode(codec.CLAIM_REPLY, reply)

    async def release(self, worker, *, goes_on=False):
        release = Release(call=self.call, epoch=self.epoch, goes_on=goes_on)
        await self.bus.request(subjects.release(worker), release, PATIENCE_S)

    async def until(self, done):
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(done)

    async def hears(self, text):
        await self.until(lambda: text in self.heard)

    @property
    def heard(self):
        return [one.text for one in self.said.values() if not one.open]

    def of(self, kind):
        return [order for order in self.orders if isinstance(order, kind)]


class Desk:
    """Two brains, an edge and their server."""

    def __init__(self, url, edge, bus, store):
        self.url, self.edge, self.bus, self.store = url, edge, bus, store
        self.heartbeat = None
        self.events = EventLog(bus, time.time)
        self.brains, self.buses, self.booking, self.thinker = [], [], Booking(), Thinker()

    async def hire(self, journal="", url=None):
        chassis = Chassis("brain", BaseSettings(nats_url=self.url, journal=str(journal)))
        bus = await Bus.connect(url or self.url, name="brain", on_lost=chassis.fail)
        tool = Imported(EntryPoint("book", "test:book", ENTRY_POINTS), self.booking.run)
        thinker = Imported(
            EntryPoint("thinker", "test:thinker", "trunkline.llm_providers"), lambda _environ: self.thinker
        )
        brain = Brain(BrainSettings(), chassis, bus, [tool], [thinker])
        await brain.start()
        self.brains.append(brain)
        self.buses.append(bus)
        return brain.worker

    async def call(self, **kinds):
        call = Call(self.bus, self.edge, agent_of(**kinds))
        await call.watch()
        started = CallStarted(agent="test", carrier="twilio", carrier_call="CA1", edge=self.edge)
        self.events.emit(call.call, started)
        return call

    async def kept(self, call):
        stored = await self.store.get(brain_key(call.call))
        return None if stored is None else decode(stored.data)

    async def until_kept(self, call, done):
        async def found():
            return (kept := await self.kept(call)) and done(kept)

        await until(found)


@asynccontextmanager
async def desk(url):
    bus = await Bus.connect(url, name="edge", on_lost=print)
    edge = new_worker_id("edge")
    heartbeat = Heartbeat(bus, stage="edge", worker=edge, calls=lambda: 0, capacity=1)
    heartbeat.start()
    made = Desk(url, edge, bus, CallStore(bus))
    made.heartbeat = heartbeat
    try:
        yield made
    finally:
        made.booking.may_end.set()
        for brain in made.brains:
            await brain.stop()
        await heartbeat.stop()
        await made.events.close()
        await bus.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Have no brain go without the store, or take a sentence for lost, because the machine stands still."""
    for where, limits in (
        (calls, ("REQUEST_TIMEOUT_S", "FIRST_TIMEOUT_S")),
        (event_reader, ("API_TIMEOUT_S",)),
        (keeper, ("READ_S", "WRITE_S")),
        (session, ("INTENT_S", "OUT_OF_REACH_S")),
        (delivery, ("START_SLACK_S",)),
    ):
        for limit in limits:
            monkeypatch.setattr(where, limit, PATIENCE_S)


@pytest.fixture(scope="module")
def url():
    with run_nats() as server:
        yield server.url


def run(url, story):
    async def told():
        async with desk(url) as made:
            await asyncio.wait_for(story(made), 2 * PATIENCE_S)

    asyncio.run(told())


def test_a_conversation_goes_on_when_its_brain_is_killed(url):
    async def story(made):
        first, second = await made.hire(), await made.hire()
        call = await made.call()
        await call.claim(first)
        await call.hears("Welcome.")
        await call.says("hello")
        await call.hears("What can I do for you today?")
        await made.buses[0].close()  # all that others see of a process that is gone
        await call.says("bye")  # heard by nobody but the edge
        assert isinstance(await call.claim(second, recap=True), Claimed)
        await call.until(lambda: call.of(HangUp))
        assert call.heard == ["Welcome.", "Good morning to you.", "What can I do for you today?", "Goodbye."]

    run(url, story)


@pytest.mark.parametrize(
    ("repeatable", "answer"), [(True, "It is booked."), (False, "I do not know whether it is booked.")]
)
def test_a_tool_that_ran_when_its_brain_was_killed(url, repeatable, answer):
    async def story(made):
        first, second = await made.hire(), await made.hire()
        call = await made.call(repeatable=repeatable)
        await call.claim(first)
        await call.says("book")
        await made.booking.begun.wait()
        assert (await made.kept(call)).snapshot.running, "the intent is stored before the tool runs"
        await made.buses[0].close()
        made.booking.may_end.set()
        await call.claim(second, recap=True)
        await call.hears(answer)
        assert len(made.booking.keys) == 1 + repeatable
        assert len(set(made.booking.keys)) == 1

    run(url, story)


def test_a_tool_waits_while_its_brain_is_cut_off_and_may_have_been_replaced(url, monkeypatch):
    monkeypatch.setattr(session, "INTENT_S", 0.3)

    async def story(made):
        async def nothing_to_say_against_it(_data):
            return Disowned(calls=())

        await made.bus.serve(subjects.holds(made.edge), nothing_to_say_against_it)
        address = urlsplit(url)
        with run_proxy(address.hostname, address.port) as proxy:
            first = await made.hire(url=proxy.url)
            call = await made.call(provider="thinker")
            await call.claim(first)
            await call.says("book")
            await made.thinker.asked.wait()
            proxy.stall()
            made.thinker.may_answer.set()
            await asyncio.sleep(session.INTENT_S + 0.6)
            assert made.booking.keys == []
            proxy.resume()
            await made.booking.begun.wait()
            made.booking.may_end.set()
            await call.hears("It is booked.")
            assert len(made.booking.keys) == 1
            await made.buses[0].close()

    run(url, story)


def test_a_brain_that_only_seemed_dead_is_told_by_the_store_and_falls_silent(url):
    async def story(made):
        first, second = await made.hire(), await made.hire()
        call = await made.call()
        await call.claim(first)
        await call.hears("Welcome.")
        await made.until_kept(call, lambda kept: kept.snapshot is not None)
        await call.claim(second, recap=True)
        await call.says("hello")
        await call.hears("What can I do for you today?")
        await until(lambda: made.brains[0].counts["deposed"] == 1)
        assert (await made.kept(call)).epoch == 2
        assert made.brains[1].counts["deposed"] == 0

    run(url, story)


def test_a_claim_of_a_past_epoch_is_refused(url):
    async def story(made):
        first, second = await made.hire(), await made.hire()
        call = await made.call()
        await call.claim(first, recap=True, epoch=7)
        await call.hears("Welcome.")
        await made.until_kept(call, lambda kept: kept.epoch == 7)
        refused = await call.claim(second, recap=True, epoch=6)
        assert isinstance(refused, Refused)
        assert "epoch 7" in refused.reason

    run(url, story)


def test_what_was_kept_is_deleted_when_the_call_is_over_and_only_then(url):
    async def story(made):
        first, second = await made.hire(), await made.hire()
        call = await made.call()
        await call.claim(first)
        await call.hears("Welcome.")
        await made.until_kept(call, lambda kept: kept.snapshot is not None)
        await call.release(first, goes_on=True)
        assert (await made.kept(call)).snapshot is not None
        await call.claim(second, recap=True)
        await call.release(second)
        assert await made.kept(call) is None

    run(url, story)


def test_a_caller_who_is_back_on_a_new_line_is_told_so_and_hears_what_was_lost(url):
    async def story(made):
        first, second = await made.hire(), await made.hire()
        call = await made.call()
        await call.claim(first)
        await call.hears("Welcome.")
        call.plays = False
        await call.says("hello")
        await call.hears("What can I do for you today?")
        await made.until_kept(call, lambda kept: kept.snapshot.mouth.saying and kept.snapshot.mouth.saying.complete)
        await made.buses[0].close()
        call.plays = True
        await call.claim(second, line="lost")
        await call.until(lambda: len(call.heard) == 6)
        assert call.heard[3:] == ["The line was gone.", "Good morning to you.", "What can I do for you today?"]

    run(url, story)


def test_what_a_lost_voice_had_not_said_is_said_again_for_the_next(url):
    async def story(made):
        first = await made.hire()
        call = await made.call()
        await call.claim(first)
        await call.hears("Welcome.")
        call.plays = False
        await call.says("hello")
        await call.hears("What can I do for you today?")
        await call.tell("playout", VoiceChanged(voice=2, reached=()))
        first_words = "Good morning to you."
        await call.until(lambda: "".join(say.text for say in call.of(Say) if say.voice == 2).startswith(first_words))

    run(url, story)


async def facts_of(made, call, kind):
    stored = [one.event().fact async for one in recorded(made.bus, call=call.call)]
    return [fact for fact in stored if isinstance(fact, kind)]


def test_a_brain_whose_edge_is_gone_settles_its_bill_and_keeps_the_conversation(url):
    async def story(made):
        first = await made.hire()
        call = await made.call()
        await call.claim(first)
        await call.says("hello")
        await call.hears("What can I do for you today?")
        await made.heartbeat.stop()
        await until(lambda: facts_of(made, call, StageSettled))
        (settled,) = await facts_of(made, call, StageSettled)
        assert [used.provider for used in settled.used] == ["script"]
        assert settled.used[0].output_tokens > 0
        assert await facts_of(made, call, AgentSpoke)
        assert (await made.kept(call)).snapshot.ending is None

    run(url, story)


def test_whoever_hands_a_call_over_records_nothing_of_its_end(url):
    async def story(made):
        first = await made.hire()
        call = await made.call()
        call.plays = False
        await call.claim(first)
        await call.hears("Welcome.")
        await call.release(first, goes_on=True)
        await made.brains[0].stop()
        made.brains.clear()
        assert not await facts_of(made, call, AgentSpoke)

    run(url, story)


def test_a_tool_that_runs_on_ends_in_order_before_its_call_is_forgotten(url, tmp_path):
    async def story(made):
        first = await made.hire(tmp_path)
        call = await made.call()
        await call.claim(first)
        await call.says("book")
        await made.booking.begun.wait()
        ((_, held),) = made.brains[0]._worker.sessions()
        await call.release(first, goes_on=True)
        held.forget()
        assert vars(held)
        made.booking.may_end.set()
        await until(lambda: not vars(held))

    run(url, story)
    told = [msgspec.json.decode(line)["what"] for file in tmp_path.iterdir() for line in file.read_bytes().splitlines()]
    assert told.count("tool-done") == 1


def test_what_was_said_and_run_is_in_the_journal(url, tmp_path):
    async def story(made):
        first, second = await made.hire(tmp_path), await made.hire(tmp_path)
        call = await made.call()
        await call.claim(first)
        await call.says("book")
        made.booking.may_end.set()
        await call.hears("It is booked.")
        await call.claim(second, recap=True)
        await call.says("hello")
        await call.hears("What can I do for you today?")

    run(url, story)
    lines = [msgspec.json.decode(line) for file in tmp_path.iterdir() for line in file.read_bytes().splitlines()]
    assert {line["what"] for line in lines} >= {"say", "tool-started", "tool-done", "took-over"}
    assert {line["who"].split("-")[0] for line in lines} == {"brain"}
    assert "".join(line["text"] for line in lines if line["what"] == "say" and line["utterance"] == 1) == "Welcome."

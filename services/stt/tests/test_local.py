"""The local provider with real decoder processes and real (synthetic) speech."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.proto.agent import Stt
from trunkline.providers.errors import Misconfigured, Unavailable
from trunkline.stt.provider import Failed, Final, Partial
from trunkline.stt.providers.decoder import Question, Want
from trunkline.stt.providers.local import LocalProvider
from trunkline.stt.providers.pool import DecoderPool, Rank
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def provider(decoders=2):
    made = LocalProvider({"TRUNKLINE_POCKETSPHINX_DECODERS": str(decoders)})
    try:
        await made.warm_up()
        yield made
    finally:
        await made.aclose()


async def heard_in(local, grammar, pcm, utterance=7, *, real_time=False):
    told = []
    over = asyncio.Event()

    def on_heard(heard):
        told.append(heard)
        if not isinstance(heard, Partial):
            over.set()

    stream = await local.open(Stt(grammar=grammar), on_heard)
    stream.begin(utterance)
    for at in range(0, len(pcm), 512):
        stream.push(pcm[at : at + 512], voiced=at < len(pcm) - 16 * 600)
        await asyncio.sleep(0.032 if real_time else 0)
    stream.finish()
    await asyncio.wait_for(over.wait(), PATIENCE_S)
    await stream.aclose()
    return told


def telephone(pcm):
    return mulaw_to_pcm16(pcm16_to_mulaw(pcm))


def word_errors(said, heard):
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before = row
        row = [i]
        for j, other in enumerate(heard, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]


def test_booking_phrases_in_four_voices_through_mu_law_are_heard(voice, grammar, phrases):
    async def run():
        errors = words = 0
        missed = []
        async with provider() as local:
            for accent in ("en-gb", "en-us", "en-gb-x-rp", "en-us+f3"):
                for phrase in phrases:
                    pcm = telephone(voice.say(phrase, accent, 300, 600))
                    final = (await heard_in(local, grammar, pcm))[-1]
                    assert isinstance(final, Final)
                    errors += word_errors(phrase.split(), final.text.split())
                    words += len(phrase.split())
                    if final.text != phrase:
                        missed.append((accent, phrase, final.text))
        assert errors / words < 0.1, missed

    asyncio.run(run())


def test_the_same_audio_has_the_same_words_and_partials_come_on_the_way(voice, grammar):
    async def run():
        async with provider() as local:
            pcm = voice.say("friday evening at seven thirty", "en-gb", 300, 600)
            live = await heard_in(local, grammar, pcm, real_time=True)
            again = await heard_in(local, grammar, pcm)
        assert live[-1] == again[-1] == Final(7, "friday evening at seven thirty")
        assert any(isinstance(heard, Partial) and heard.text for heard in live[:-1])

    asyncio.run(run())


def test_hiss_and_silence_have_no_words(grammar):
    async def run():
        async with provider() as local:
            hiss = np.random.default_rng(1).normal(0, 10, 16_000).astype("<i2").tobytes()
            for pcm in (bytes(32_000), b"", hiss):
                assert (await heard_in(local, grammar, pcm))[-1] == Final(7, "")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("stt", "problem"),
    [
        (Stt(), r"stt\.grammar: is empty"),
        (Stt(grammar="yes | no"), r"stt\.grammar: must begin with"),
        (Stt(grammar="#JSGF V1.0; grammar g; public <a> = yes qqzx;"), r"stt\.grammar: has words .* qqzx"),
        (Stt(grammar="#JSGF V1.0; grammar g; public <a> = yes (;"), r"stt\.grammar: is no JSGF"),
        (Stt(grammar="#JSGF V1.0; grammar g; public <a> = yes;", language="nl"), r"stt\.language: 'nl'"),
    ],
)
def test_what_cannot_be_heard_is_refused_with_the_setting(stt, problem, monkeypatch):
    monkeypatch.setattr("trunkline.stt.providers.local._CHECK_S", PATIENCE_S)

    async def run():
        async with provider(1) as local:
            with pytest.raises(Misconfigured, match=problem):
                await local.open(stt, print)

    asyncio.run(run())


def test_the_automaton_follows_the_claim_and_finds_the_same_words(voice, grammar):
    async def run():
        async with provider() as local:
            pcm = voice.say("a table for four people please", "en-us", 300, 600)
            at_once = (await heard_in(local, grammar, pcm))[-1]
            await until(lambda: local._grammars[grammar].automaton)
            later = (await heard_in(local, grammar, pcm))[-1]
        assert at_once == later == Final(7, "a table for four people please")

    asyncio.run(run())


def test_more_grammars_than_are_cached_are_served_all_the_same():
    async def run():
        async with provider(1) as local:
            for _ in range(2):
                for n in range(40):
                    await local.open(Stt(grammar=f"#JSGF V1.0; grammar g{n}; public <a> = yes;"), print)

    asyncio.run(run())


def test_a_decoder_that_dies_fails_its_question_and_is_replaced(grammar, voice):
    async def run():
        pool = DecoderPool(1)
        await pool.start()
        try:
            question = Question(Want.WORDS, grammar, voice.say("yes please"))
            lost = pool.ask(Rank.FINAL, question)
            while pool.spare:
                await asyncio.sleep(0)
            for pid in children_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(Unavailable):
                await lost
            assert (await pool.ask(Rank.FINAL, question)).text == "yes please"
        finally:
            await pool.aclose()
        assert children_of(os.getpid()) == []

    asyncio.run(run())


def test_finals_go_before_partials_and_one_decoder_is_kept_for_them(grammar, voice):
    async def run():
        pool = DecoderPool(1)
        await pool.start()
        question = Question(Want.WORDS, grammar, voice.say("yes please"))
        order = []
        asked = [pool.ask(rank, question) for rank in (Rank.PARTIAL, Rank.EARLY, Rank.FINAL, Rank.CHECK)]
        for rank, answering in zip(("partial", "early", "final", "check"), asked, strict=True):
            answering.add_done_callback(lambda _, rank=rank: order.append(rank))
        assert not pool.spare
        await asyncio.gather(*asked)
        assert order == ["check", "final", "early", "partial"]
        await pool.aclose()

    asyncio.run(run())


class Told:
    """Streams of one provider, and what they tell, in order."""

    def __init__(self, local, grammar):
        self._local = local
        self._grammar = grammar
        self.words = []

    async def stream(self):
        return await self._local.open(Stt(grammar=self._grammar), self.words.append)

    async def wait(self, count):
        await until(lambda: len(self.words) >= count)


def speak(stream, utterance, pcm, *, silence_ms=200):
    stream.begin(utterance)
    stream.push(pcm, voiced=True)
    stream.push(bytes(16 * silence_ms), voiced=False)


def test_what_is_given_up_is_decoded_no_more(grammar, voice):
    async def run():
        async with provider(1) as local:
            told = Told(local, grammar)
            expired, wanted = await told.stream(), await told.stream()
            for utterance, stream in enumerate((expired, wanted)):
                speak(stream, utterance, voice.say("yes please"))
                stream.finish()
            expired.give_up(0)
            await told.wait(1)
            assert told.words == [Final(1, "yes please")]
            expired.give_up(0)
            speak(expired, 2, voice.say("yes please"))
            expired.finish()
            await told.wait(2)
            assert told.words[1:] == [Final(2, "yes please")]

    asyncio.run(run())


def test_a_question_given_up_or_finished_keeps_no_place_in_the_queue(grammar):
    async def run():
        pool = DecoderPool(1)
        given_up = pool.ask(Rank.FINAL, Question(Want.WORDS, grammar))
        assert not pool.spare
        given_up.cancel()
        await asyncio.sleep(0)
        assert pool.spare
        pool.promote(given_up, Rank.CHECK)
        assert pool.spare

    asyncio.run(run())


def test_an_utterance_that_is_over_goes_before_those_that_are_probably_over(grammar, voice):
    async def run():
        async with provider(1) as local:
            told = Told(local, grammar)
            paused, over = await told.stream(), await told.stream()
            for utterance, stream in enumerate((paused, over)):
                speak(stream, utterance, voice.say("yes please"))
            over.finish()
            await told.wait(2)
            assert told.words == [Final(1, "yes please"), Partial(0, "yes please")]

    asyncio.run(run())


def test_a_claim_waits_shortly_for_busy_decoders_and_a_wrong_grammar_then_fails_at_its_words(voice, monkeypatch):
    async def run():
        async with provider(1) as local:
            told = Told(local, "#JSGF V1.0; grammar g; public <a> = yes qqzx;")
            (decoder,) = children_of(os.getpid())
            os.kill(decoder, signal.SIGSTOP)
            try:
                streams = await asyncio.gather(told.stream(), told.stream())
            finally:
                os.kill(decoder, signal.SIGCONT)
            speak(streams[0], 7, voice.say("yes please"))
            streams[0].finish()
            await told.wait(1)
            (failed,) = told.words
            assert isinstance(failed, Failed)
            assert "stt.grammar has words the dictionary lacks: qqzx" in str(failed.error)
            monkeypatch.setattr("trunkline.stt.providers.local._CHECK_S", PATIENCE_S)
            with pytest.raises(Misconfigured, match=r"stt\.grammar: has words .* qqzx"):
                await told.stream()

    asyncio.run(run())


def test_a_right_grammar_accepted_unseen_gets_its_automaton_all_the_same(voice, grammar):
    async def run():
        async with provider(1) as local:
            told = Told(local, grammar)
            (decoder,) = children_of(os.getpid())
            os.kill(decoder, signal.SIGSTOP)
            try:
                stream = await told.stream()
            finally:
                os.kill(decoder, signal.SIGCONT)
            await until(lambda: stream._grammar.automaton)
            assert (await heard_in(local, grammar, voice.say("yes please")))[-1] == Final(7, "yes please")

    asyncio.run(run())


PARENT = """
import asyncio
from trunkline.stt.providers.pool import DecoderPool

async def run():
    await DecoderPool(2).start()
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(run())
"""


def test_no_decoder_outlives_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        decoders = children_of(parent.pid)
        assert len(decoders) == 2
        parent.kill()
    asyncio.run(until(lambda: not any(alive(pid) for pid in decoders)))


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for task in tasks for child in task.read_text().split()]
    return [child for child in found if b"trunkline.stt.providers.decoder" in command_of(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid):
    return b"trunkline.stt.providers.decoder" in command_of(pid)

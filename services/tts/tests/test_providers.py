"""What every provider must do, asked of ours; and what espeak-ng makes of it."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import espeakng_loader
import pytest

from trunkline.audio.levels import peak, rms_dbfs, voiced_spans
from trunkline.proto.agent import Tts
from trunkline.providers.errors import Misconfigured
from trunkline.tts.provider import providers
from trunkline.tts.providers.espeak import Espeak, espeak

pytestmark = pytest.mark.integration

SENTENCE = "The table is booked for four people at half past seven."
LONG = "I would like to tell you about our menu today. " * 20
every_provider = pytest.mark.parametrize("name", ["local", "bench"])


async def voice_of(name="local", **settings):
    return await providers({}).get(name).open(Tts(provider=name, **settings))


async def written(text):
    yield text


async def spoken(voice, text):
    return b"".join([piece async for piece in voice.speak(written(text))])


def seconds(pcm, voice):
    return len(pcm) / 2 / voice.sample_rate_hz


@every_provider
def test_a_sentence_can_be_heard(name):
    async def story():
        voice = await voice_of(name)
        pcm = await spoken(voice, SENTENCE)
        await voice.aclose()
        assert 1.5 < seconds(pcm, voice) < 5
        assert -30 < rms_dbfs(pcm) < -10
        assert peak(pcm) < 32_000

    asyncio.run(story())


@every_provider
def test_a_sentence_closed_early_leaves_the_voice_ready(name):
    async def story():
        voice = await voice_of(name)
        async with aclosing(voice.speak(written(LONG))) as pieces:
            async for _ in pieces:
                break
        assert seconds(await spoken(voice, SENTENCE), voice) < 5

    asyncio.run(story())


@every_provider
def test_voices_take_turns_and_do_not_mix(name):
    async def story():
        voice, other = await voice_of(name), await voice_of(name)
        alone = len(await spoken(voice, SENTENCE))
        together = await asyncio.gather(*(spoken(each, SENTENCE) for each in (voice, other, voice, other)))
        assert all(len(pcm) == pytest.approx(alone, rel=0.02) for pcm in together)

    asyncio.run(story())


def test_closing_aborts_the_synthesis_and_not_only_its_delivery(monkeypatch):
    made, synthesise = [], Espeak.synthesise

    def counted(library, text, setting, emit):
        synthesise(library, text, setting, lambda block: made.append(block) or emit(block))

    monkeypatch.setattr(Espeak, "synthesise", counted)

    async def story():
        voice = await voice_of()
        whole = len(await spoken(voice, LONG))
        made.clear()
        async with aclosing(voice.speak(written(LONG * 20))) as pieces:
            await anext(pieces)
        await spoken(voice, "Yes.")  # shares the thread, so it waits for what is still running
        assert sum(map(len, made)) < 10 * whole

    asyncio.run(story())


def test_a_cancelled_listener_frees_the_thread():
    async def story():
        voice = await voice_of()
        listener = asyncio.create_task(spoken(voice, LONG))
        await asyncio.sleep(0)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        assert seconds(await spoken(voice, "Yes."), voice) < 1

    asyncio.run(story())


def test_speed_pitch_and_voice_are_honoured():
    async def story():
        normal, fast, slow = [len(await spoken(await voice_of(speed=speed), SENTENCE)) for speed in (1.0, 2.0, 0.5)]
        assert fast < 0.7 * normal
        assert slow > 1.5 * normal
        assert await spoken(await voice_of(pitch=90), SENTENCE) != await spoken(await voice_of(), SENTENCE)
        for name in ("en-us", "en-gb+f3", "English (Scotland)", "gmw/en-US", "de"):
            assert await spoken(await voice_of(voice=name), "One.")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("voice", "error"),
    [
        ("nobody", r"tts\.voice: 'nobody' is not there; expected one of .*\ben-gb\b.*\ben-us\b"),
        ("en-us+nobody", r"tts\.voice: 'en-us\+nobody' is not there; expected one of .*en-us\+f3"),
    ],
)
def test_an_unknown_voice_is_refused_with_the_choice(voice, error):
    with pytest.raises(Misconfigured, match=error):
        asyncio.run(voice_of(voice=voice))


def test_a_checkout_deep_in_folders_is_no_trouble(tmp_path):
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 8)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
    # The library is global to its process, so it is loaded again in another one.
    code = (
        "import pathlib, sys; from trunkline.tts.providers.espeak import Espeak;"
        "espeak, pieces = Espeak(pathlib.Path(sys.argv[1])), [];"
        "espeak.synthesise('One two three.', espeak.resolve('en-gb+f3'), lambda piece: not pieces.append(piece));"
        "print(sum(map(len, pieces)))"
    )
    said = subprocess.run([sys.executable, "-c", code, deep / "espeak-ng-data"], capture_output=True, check=True)
    assert int(said.stdout) > 22_050


def test_markup_and_phonemes_are_words():
    async def story():
        voice = await voice_of()
        plain = await spoken(voice, "stop")
        assert len(await spoken(voice, "<break time='9s'/> stop")) > len(plain)
        assert len(await spoken(voice, "<break time='9s'/> stop")) < len(plain) + 2 * 22_050 * 8
        assert len(await spoken(voice, "[[stop]] stop")) > 1.5 * len(plain)

    asyncio.run(story())


def test_threads_that_want_to_speak_at_once_take_turns_in_one_library():
    def say(_):
        library, pieces = espeak(), []
        library.synthesise(SENTENCE, library.resolve("en-gb"), lambda piece: not pieces.append(piece))
        return id(library), len(b"".join(pieces)) // 2_205

    # Without turns this ends the whole process with a segmentation fault.
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(say, range(40)))) == 1


def test_speech_begins_and_ends_without_dead_air():
    async def story():
        voice = await voice_of()
        pcm = await spoken(voice, SENTENCE)
        spans = voiced_spans(pcm, voice.sample_rate_hz)
        assert spans[0].start_ms <= 40
        assert spans[-1].end_ms >= seconds(pcm, voice) * 1_000 - 60

    asyncio.run(story())

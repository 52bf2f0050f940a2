"""A decoder process: pocketsphinx, one question at a time on standard input, one answer on standard output.

It is a process of its own because the binding holds the interpreter's lock while it decodes (measured: another thread
got no turn for the 144 ms that 4 s of speech took), which would silence every call of the worker. It ends when its
input does, so nothing is left behind when the worker is killed. It knows grammars and audio, no calls.

Messages are a u32 little-endian length and msgpack.
"""

import os
import signal
import struct
import sys
from collections import OrderedDict
from math import log
from typing import BinaryIO, Final

import msgspec
import pocketsphinx

from trunkline.stt.providers.bandwidth import WIDE_HZ, widen
from trunkline.stt.providers.grammar import problem_of

LENGTH: Final = struct.Struct("<I")
_CACHED_GRAMMARS: Final = 32
_NICENESS: Final = 5
"""Words may come a little later; the worker's loop, which hears every call, may not."""
_SCORE_SCALE: Final = 1_024
"""pocketsphinx's grammar search shifts acoustic scores right by ten bits."""
_FLOOR: Final = -6.4
"""Mean acoustic score per frame of the words below which they are not believed (see `local`)."""


class Question(msgspec.Struct, frozen=True, array_like=True):
    """Which words of `grammar` are in `pcm` (PCM16 at 8 kHz)? Without audio: is the grammar right?"""

    grammar: str
    pcm: bytes | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The words, or what is wrong with the grammar. `score` is the mean per frame; 0 is perfect."""

    text: str = ""
    score: float = 0.0
    problem: str = ""


class Decoder:
    """The model, loaded once, and a search for each of the grammars used last."""

    def __init__(self) -> None:
        self._decoder = pocketsphinx.Decoder(
            samprate=WIDE_HZ,
            lm=None,
            loglevel="FATAL",
            # The default beams lose long phrases once in ten; these cost half as much again. With the lattice
            # (bestpath) the same beams take twenty times as long for two phrases in fifty.
            beam=1e-80,
            wbeam=1e-60,
            pbeam=1e-80,
            bestpath=False,
        )
        self._searches: OrderedDict[str, str] = OrderedDict()
        self._made = 0

    def answer(self, question: Question) -> Answer:
        """Answer one question."""
        if problem := self._use(question.grammar):
            return Answer(problem=problem)
        return Answer() if question.pcm is None else self._decode(question.pcm)

    def _use(self, grammar: str) -> str | None:
        """Activate the search for `grammar`; return what is wrong with it."""
        name = self._searches.get(grammar)
        if name is None:
            if problem := problem_of(grammar, lambda word: self._decoder.lookup_word(word) is not None):
                return problem
            self._made += 1
            name = f"grammar-{self._made}"
            try:
                self._decoder.add_jsgf_string(name, grammar)
            except (ValueError, RuntimeError):
                return "is no JSGF that can be read"
            self._searches[grammar] = name
            if len(self._searches) > _CACHED_GRAMMARS:
                _, oldest = self._searches.popitem(last=False)
                self._decoder.remove_search(oldest)
        self._searches.move_to_end(grammar)
        self._decoder.activate_search(name)
        return None

    def _decode(self, pcm: bytes) -> Answer:
        decoder = self._decoder
        decoder.start_utt()
        decoder.process_raw(widen(pcm), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        if hypothesis is None or not hypothesis.hypstr:
            return Answer()
        score = self._mean_score()
        return Answer(hypothesis.hypstr if score > _FLOOR else "", round(score, 2))

    def _mean_score(self) -> float:
        frames = 0
        score = 0.0
        for segment in self._decoder.seg():
            if segment.word[0] in "<([":
                continue
            frames += segment.end_frame - segment.start_frame + 1
            score += log(max(segment.ascore, 1e-300)) * _SCORE_SCALE
        return score / frames if frames else 0.0


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more questions."""
    decoder = Decoder()
    asked = msgspec.msgpack.Decoder(Question)
    _write(answers, Answer())
    while len(head := questions.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        data = questions.read(length)
        if len(data) < length:
            return
        _write(answers, decoder.answer(asked.decode(data)))


def pack(message: Question | Answer) -> bytes:
    """Return the wire form of `message`."""
    data = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(data)) + data


def _write(out: BinaryIO, answer: Answer) -> None:
    out.write(pack(answer))
    out.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        # Whoever asked is gone; the interpreter must not try to flush to it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

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
from enum import IntEnum
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

import msgspec
import pocketsphinx

from trunkline.stt.providers.automaton import Arc, Automaton, compact, probability_of
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


class Want(IntEnum):
    """What is asked."""

    WORDS = 0
    VERDICT = 1
    AUTOMATON = 2


class Question(msgspec.Struct, frozen=True, array_like=True):
    """Which words of `grammar` are in `pcm` (PCM16 at 8 kHz)? Or: is the grammar right? Or: its automaton, please.

    `automaton` is what an earlier answer brought; with it, words are found in a fraction of the time.
    """

    want: Want
    grammar: str
    pcm: bytes = b""
    automaton: bytes = b""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The words with their mean score per frame (0 is perfect), or what is wrong with the grammar, or its automaton."""

    text: str = ""
    score: float = 0.0
    problem: str = ""
    automaton: bytes = b""


class Decoder:
    """The model, loaded once, and a search for each of the grammars used last."""

    def __init__(self) -> None:
        self._decoder = pocketsphinx.Decoder(
            samprate=WIDE_HZ,
            lm=None,
            loglevel="FATAL",
            # The default beams lose one long phrase in ten; wider ones than these, or the lattice (bestpath), win one
            # in thirty at twice to twenty times the price.
            beam=1e-60,
            wbeam=1e-45,
            pbeam=1e-60,
            maxhmmpf=3_000,
            bestpath=False,
        )
        self._searches: OrderedDict[tuple[str, bytes], str] = OrderedDict()
        self._made = 0

    def answer(self, question: Question) -> Answer:
        """Answer one question."""
        if question.want is Want.AUTOMATON:
            return Answer(automaton=self._automaton_of(question.grammar))
        if problem := self._use(question.grammar, question.automaton):
            return Answer(problem=problem)
        return self._decode(question.pcm) if question.want is Want.WORDS else Answer()

    def _use(self, grammar: str, automaton: bytes) -> str | None:
        """Activate the search for `grammar`; return what is wrong with it."""
        key = (grammar, automaton)
        name = self._searches.get(key)
        if name is None:
            if problem := problem_of(grammar, lambda word: self._decoder.lookup_word(word) is not None):
                return problem
            self._made += 1
            name = f"grammar-{self._made}"
            try:
                if automaton:
                    self._decoder.add_fsg(name, self._graph_of(name, automaton))
                else:
                    self._decoder.add_jsgf_string(name, grammar)
            except (ValueError, RuntimeError):
                return "is no JSGF that can be read"
            self._searches[key] = name
            if len(self._searches) > _CACHED_GRAMMARS:
                _, oldest = self._searches.popitem(last=False)
                self._decoder.remove_search(oldest)
        self._searches.move_to_end(key)
        self._decoder.activate_search(name)
        return None

    def _automaton_of(self, grammar: str) -> bytes:
        """Return the automaton of a `grammar` that is right; empty when there is no small one."""
        with TemporaryDirectory(prefix="trunkline-grammar-") as folder:
            path = Path(folder) / "graph.fsg"
            self._decoder.parse_jsgf(grammar).writefile(str(path))
            automaton = compact(*read_graph(path.read_text()))
        return msgspec.msgpack.encode(automaton) if automaton is not None else b""

    def _graph_of(self, name: str, automaton: bytes) -> pocketsphinx.FsgModel:
        graph = msgspec.msgpack.decode(automaton, type=Automaton)
        final = 1 + max((max(source, target) for source, target, _, _ in graph.arcs), default=0)
        words = [
            (source, target, probability_of(weight), graph.words[word]) for source, target, weight, word in graph.arcs
        ]
        ends = [(state, final, probability_of(weight)) for state, weight in graph.finals]
        return self._decoder.create_fsg(name, 0, final, words + ends)

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


def read_graph(text: str) -> tuple[int, int, list[Arc]]:
    """Return start, final state and arcs of a graph as pocketsphinx writes it."""
    start = final = 0
    arcs: list[Arc] = []
    for line in text.splitlines():
        match line.split():
            case ["START_STATE", state]:
                start = int(state)
            case ["FINAL_STATE", state]:
                final = int(state)
            case ["TRANSITION", source, target, probability, *word]:
                arcs.append(Arc(int(source), int(target), float(probability), word[0] if word else None))
    return start, final, arcs


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

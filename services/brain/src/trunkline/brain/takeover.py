"""How a conversation goes on in another process: what its last one kept, and what the edge saw go by since. Pure.

A snapshot is written behind, so it may be a few events old. Those the edge saw are told again: what became of the
agent's sentences, the caller's words, their keys. A conversation that is told the same does the same and numbers its
generations alike; so what it would order is not carried out but compared with what the edge saw ordered. A sentence
that somebody has given out is not given out again; one that nobody has is said now; an interrupt of a generation that
the edge knows has happened.

What is left then is to go on: to wait until all is heard, to have the rest of an answer thought, to run a tool again or
to own up that nobody knows what it did.
"""

from collections.abc import Callable, Iterable
from itertools import groupby

from trunkline.brain.heard import Speaking
from trunkline.brain.lines import fixed_lines
from trunkline.brain.moves import EndCall, Order, RunTool, Speak, StopThinking, Think, Told, TookOver, Void
from trunkline.brain.reply import Reply
from trunkline.brain.snapshot import Snapshot
from trunkline.brain.utterance import Fate, Utterance
from trunkline.proto.agent import Agent
from trunkline.proto.ids import UtteranceId
from trunkline.proto.messages import (
    FinalTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Reached,
    Recap,
    SpeechMessage,
    SpeechStarted,
    Uttered,
)


def restore(reply: Reply, known: Snapshot) -> None:
    """Have `reply` begin as it was kept."""
    reply.state, reply.turn = known.state, known.turn
    reply.mouth.restore(known.mouth)
    current = reply.mouth.current
    said = {} if current is None else {utterance.id: utterance for utterance in current.utterances}
    reply.history.restore(known.history, said)
    reply.errands.restore(known.running, known.tools_this_turn)
    reply.failures.restore(known.failures, worked=known.worked)


class Inheritance:
    """What somebody else has left.

    Args:
        event: with what they kept, and what the edge saw.
        agent: who answers.
        reply: as it was kept.
        step: tells the conversation an event that has happened already.
    """

    def __init__(self, event: TookOver, agent: Agent, reply: Reply, step: Callable[[Told], None]) -> None:
        self._seen = event.generation
        self._known = event.snapshot or Snapshot()
        self._recap = event.recap or Recap()
        self._agent = agent
        self._reply = reply
        self._mouth = reply.mouth
        self._tell = step
        self._cuts: list[Uttered] = []
        self._groups: list[list[Uttered]] = []
        """Sentences the snapshot does not know, by generation, that have found no place yet."""
        self._newest = max((said.utterance for said in self._recap.said), default=UtteranceId(0))

    # --- what happened since ---------------------------------------------------------------------------------------

    def catch_up(self, enter_keys: Callable[[], None], at: float) -> None:
        """Have all that the edge saw happen; `enter_keys` takes what was pressed, if anything, as an entry."""
        self._mouth.above(self._mouth.generation, self._newest)
        self._sort_sentences(at)
        for message in self._missed(self._recap.speech):
            self._step(message, at)
        for digit in self._recap.digits:
            if digit.at > self._known.key_at:
                self._step(digit, at)
        if self._groups and self._reply.state == "listening":
            enter_keys()
            self._place(at)
        self._place_late(at)
        self._note_interrupt(at)

    def owed(self, orders: Iterable[Order]) -> list[Order]:
        """Return those of `orders`, given while catching up, that nobody has carried out yet."""
        current = self._mouth.current
        said = set() if current is None else {utterance.id for utterance in current.utterances}
        owed: list[Order] = []
        for order in orders:
            match order:
                case Think() | StopThinking() | RunTool() | EndCall():
                    continue  # asked again below, if it is still wanted
                case Void(generation) if generation <= self._seen:
                    continue
                case Speak(_, utterance) if utterance not in said:
                    continue
                case _:
                    owed.append(order)
        return owed

    def _sort_sentences(self, at: float) -> None:
        """Take in what became of the sentences that the snapshot knows, and those that go on its turn."""
        current = self._mouth.current
        under_way = self._mouth.generation if current is None else current.generation
        fresh: list[Uttered] = []
        fillers = dict(self._known.mouth.fillers)
        for said in self._recap.said:
            utterance = current.find(said.utterance) if current is not None else None
            if utterance is not None:
                take_in(utterance, said)
                self._told_fate(said, at)
            elif said.utterance in fillers:
                self._told_fate(said, at)
            elif said.utterance <= self._known.mouth.utterance or not said.text:
                continue  # its books are closed, or it is the edge's own
            elif self._known.state != "listening" and said.generation == under_way:
                self._take_up([said], at)
            else:
                fresh.append(said)
        self._groups = [list(group) for _, group in groupby(fresh, key=lambda said: said.generation)]
        self._settle_cuts()

    def _missed(self, speech: Iterable[SpeechMessage]) -> Iterable[SpeechMessage]:
        """Return what the caller said that the snapshot does not know of."""
        begun = set(self._known.heard.utterances)
        counted = {utterance: len(words) for utterance, words in self._known.heard.words}
        for message in speech:
            if message.utterance <= self._known.heard_upto:
                continue
            if isinstance(message, SpeechStarted) and message.utterance in begun:
                continue
            if isinstance(message, FinalTranscript) and counted.get(message.utterance):
                counted[message.utterance] -= 1
                continue
            yield message

    def _step(self, event: Told, at: float) -> None:
        self._tell(event)
        self._settle_cuts()
        self._place(at)

    # --- the agent's sentences -------------------------------------------------------------------------------------

    def _place(self, at: float) -> None:
        """Give the sentences of the next generations their place, if the conversation has come so far."""
        while self._groups and (generation := self._groups[0][0].generation) <= self._mouth.generation:
            state, current = self._reply.state, self._mouth.current
            if generation == self._mouth.generation and state == "listening":
                return
            group = self._groups.pop(0)
            if generation < self._mouth.generation:
                continue  # it was made void, and nobody can tell whom it answered
            if state == "speaking" and current is not None:
                group = self._match(current, group, at)
            self._take_up(group, at)
            self._settle_cuts()

    def _match(self, current: Speaking, group: list[Uttered], at: float) -> list[Uttered]:
        """Find those of `group` that the conversation said by itself while it caught up; return the others."""
        others = []
        for said in group:
            ours = next((u for u in current.utterances if u.id > self._newest and u.text == said.text), None)
            if ours is None:
                others.append(said)
            else:
                ours.id = said.utterance
                take_in(ours, said)
                self._told_fate(said, at)
        current.utterances.sort(key=lambda utterance: utterance.id)
        return others

    def _take_up(self, group: Iterable[Uttered], at: float) -> None:
        """Count sentences as given out in the turn under way, as which they were."""
        for said in group:
            if said.text in self._agent.turns.fillers:
                if said.fate in {"waiting", "playing"}:
                    self._mouth.take_up_filler(said.utterance, said.text)
                continue
            utterance = Utterance(id=said.utterance, text="", said_at=at)
            take_in(utterance, said)
            turn = self._mouth.take_up(self._reply.turn, utterance)
            turn.answers = turn.answers or said.text not in fixed_lines(self._agent)
            self._reply.state = "speaking"
            self._reply.fillers.stop()
            self._told_fate(said, at)

    def _place_late(self, at: float) -> None:
        """Go on with what was said last, if it answers nothing that we know of: a reprompt, or words said again."""
        if not self._groups:
            return
        group, self._groups = self._groups[-1], []
        if self._reply.state == "thinking":
            self._mouth.above(group[0].generation, self._newest)
            self._take_up(group, at)
            return
        cut, lines = self._mouth.current, fixed_lines(self._agent)
        texts = [said.text for said in group if said.text not in self._agent.turns.fillers]
        if not texts:
            return
        if cut is not None:
            self._mouth.void("overdue")
            self._mouth.close(at, interrupted=True)
        self._mouth.above(group[0].generation, self._newest)
        turn = self._mouth.begin(self._reply.turn)
        if cut is not None and set(texts) <= set(cut.unheard):
            self._reply.history.forget_unheard()
            turn.again, turn.answers, turn.complete, turn.end_reason = True, cut.answers, cut.complete, cut.end_reason
            turn.failed, turn.owes_a_word = cut.failed, cut.owes_a_word
        elif all(text in lines for text in texts):
            turn.complete, turn.end_reason = True, lines[texts[-1]]
        elif texts[-1] == self._agent.spent:
            turn.complete, turn.end_reason = True, self._recap.winding_up or self._known.winding_up or ""
        self._take_up(group, at)

    def _note_interrupt(self, at: float) -> None:
        """Make void what the edge has, though we do not know why: what was not heard of it is said again."""
        current = self._mouth.current
        if self._seen > self._mouth.generation and self._reply.state == "speaking" and current is not None:
            self._reply.fall_silent("resumed-turn", at)
            self._mouth.above(self._seen, self._newest)
            self._settle_cuts()
            self._reply.go_on(at)
        self._mouth.above(self._seen, self._newest)

    # --- what became of them ---------------------------------------------------------------------------------------

    def _told_fate(self, said: Uttered, at: float) -> None:
        """Tell the conversation what the edge did; but of a cut only when it knows of the interrupt."""
        if said.fate == "waiting":
            return
        generation, utterance = said.generation, said.utterance
        if said.fate != "cut" or said.heard_ms > 0:
            self._tell(PlayoutStarted(generation=generation, utterance=utterance, synthesised_at=at, sent_at=at))
        if said.fate == "finished":
            self._tell(PlayoutFinished(generation=generation, utterance=utterance, heard_ms=said.heard_ms))
        elif said.fate == "cut":
            self._cuts.append(said)

    def _settle_cuts(self) -> None:
        for said in list(self._cuts):
            if self._mouth.generation > said.generation or self._seen <= said.generation:
                self._cuts.remove(said)
                cut = PlayoutCut(
                    generation=said.generation,
                    utterance=said.utterance,
                    heard_ms=said.heard_ms,
                    total_ms=said.queued_ms,
                    complete=said.complete,
                )
                self._tell(cut)

    # --- to go on --------------------------------------------------------------------------------------------------

    def say_what_was_lost(self, at: float) -> None:
        """Say again what a voice had not said when it was lost, and what was ordered and reached nobody."""
        reached = tuple(
            Reached(
                generation=said.generation,
                utterance=said.utterance,
                queued_ms=said.queued_ms,
                complete=said.complete or not said.lost,
            )
            for said in self._recap.said
        )
        current = self._mouth.current
        ours = set() if current is None else {u.id for u in current.utterances if u.id > self._newest}
        if reached:
            given = (Reached(generation=self._mouth.generation, utterance=u, queued_ms=0, complete=True) for u in ours)
            self._reply.voice_changed((*reached, *given), at)

    def take_up_tools(self) -> None:
        """Settle what ran."""
        self._reply.errands.take_up([tool.name for tool in self._agent.tools if tool.repeatable])


def resume(reply: Reply, at: float) -> None:
    """Go on: wait until what was given out is heard, and have the rest of the answer thought."""
    reply.fillers.stop()
    current = reply.mouth.current
    if reply.state != "listening" and (current is None or not current.complete):
        reply.mouth.shut()
        reply.think(at)
    if reply.state == "speaking":
        reply.mouth.watch(at)


def resume_on_new_line(reply: Reply, first: str, at: float) -> None:
    """Go on when all that was on its way is gone: say `first`, then what was not heard; then as ever."""
    reply.fillers.stop()
    cut, listening = reply.mouth.current, reply.state == "listening"
    if cut is None or listening:
        cut = Speaking(reply.turn, reply.generation)
        cut.complete = listening
    unheard = [] if listening else [u.text for u in cut.utterances if _to_be_said_again(u)]
    reply.mouth.void("overdue")
    if first or unheard:
        reply.say_again(cut, [(sentence, False) for sentence in unheard], at, first)
    elif not listening and reply.mouth.current is not None:
        reply.mouth.close(at, interrupted=True)
    if not cut.complete:
        reply.think(at)


def _to_be_said_again(utterance: Utterance) -> bool:
    """Tell whether it is a whole sentence that was not heard; the beginning of one is thought again."""
    return utterance.fate is not Fate.FINISHED and not utterance.lost and not utterance.open and bool(utterance.text)


def take_in(utterance: Utterance, said: Uttered) -> None:
    """Take in what the edge knows of a sentence, unless the snapshot, which is read later, has more of it."""
    if len(said.text) > len(utterance.text):
        utterance.text, utterance.open = said.text, said.open
    elif said.text == utterance.text:
        utterance.open = utterance.open and said.open
    utterance.points = said.points or utterance.points

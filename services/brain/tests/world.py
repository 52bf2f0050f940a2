"""A call around a conversation: model, tools, voice, caller, and an edge that remembers; the brain may die in it."""

import random

from trunkline.brain.conversation import Conversation
from trunkline.brain.llm import AgentSaid, CallerSaid, SystemNote, ToolAnswered, ToolCall
from trunkline.brain.moves import (
    Emit,
    EndCall,
    Opened,
    RunTool,
    Speak,
    Think,
    ThoughtCame,
    ThoughtEnded,
    TimerFired,
    TookOver,
    ToolDone,
    ToolWanted,
    Void,
)
from trunkline.brain.rest import begun, rest_of
from trunkline.brain.snapshot import Kept, decode, encode
from trunkline.proto.agent import Agent, Tool, TurnTaking
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Reached,
    Recap,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
    Uttered,
    VoiceChanged,
)

AGENT = Agent(
    name="test",
    greeting="Hello. How can I help?",
    apology="Sorry?",
    farewell="Farewell.",
    resumed="The line was gone.",
    tools=(Tool(name="check", description="", repeatable=True), Tool(name="book", description="")),
    turns=TurnTaking(fillers=("Wait a second please.",), reprompt="Anyone?"),
)
ANSWERS = {
    "table": ("Certainly, a table for two it is then. Let me look whether one is free for you.", "check"),
    "check": ("Yes, there is one left at eight o'clock in the corner. Shall I take it?", None),
    "yes": ("One moment please, I enter it into the big book now.", "book"),
    "book": ("It is booked under your name. Anything else that I can do?", None),
    "12#": ("You pressed the keys one and two, I see that very well.", None),
    "bye": ("Thank you for calling us today. Goodbye and see you soon. [END_CALL]", None),
}
LINES = ("table", "yes", "12#", "bye")


def model(messages):
    """Answer the last moment of a history, or the rest of what was begun, as a script does."""
    moments = [m for m in messages if isinstance(m, CallerSaid | SystemNote | ToolAnswered)]
    last = moments[-1]
    if isinstance(last, ToolAnswered):
        text, tool = ANSWERS[last.name]
    elif isinstance(last, SystemNote):
        text, tool = ANSWERS[last.text.split()[-1]]
    else:
        text, tool = ANSWERS[last.text]
    return rest_of(text, begun(messages)), tool


class Heard:
    """One sentence at the edge."""

    def __init__(self, speak):
        self.generation, self.utterance = speak.generation, speak.utterance
        self.text, self.open = speak.text, speak.goes_on
        self.fate = "waiting"
        self.lost = False
        self.heard_ms = 0

    @property
    def total_ms(self):
        return len(self.text) * 60

    def told(self):
        playing = self.fate not in {"waiting", "silent"}
        return Uttered(
            generation=self.generation,
            utterance=self.utterance,
            text=self.text,
            open=self.open,
            fate={"broken": "playing", "silent": "waiting"}.get(self.fate, self.fate),
            complete=self.fate != "broken" and playing and not self.open,
            queued_ms=self.heard_ms if self.fate == "broken" else self.total_ms if playing else 0,
            heard_ms=self.heard_ms,
            lost=self.lost,
        )

    @property
    def sounded(self):
        """What of it the caller has heard, in whole words."""
        if self.fate == "finished":
            return self.text.split()
        if self.fate != "broken":
            return []
        reach = self.heard_ms // 60
        return self.text[
            : reach if self.text[reach : reach + 1] in {"", " "} else self.text.rfind(" ", 0, reach) + 1
        ].split()


class World:
    """Let a call happen, step by step; what happens next is drawn by `seed`."""

    def __init__(self, seed=0, lines=LINES, barge_in_at=()):
        self.random = random.Random(seed)  # noqa: S311 - an order that can be repeated, no secret
        self.lines = list(lines)
        self.barge_in_at = set(barge_in_at)
        self.now = 1000.0
        self.machine = Conversation(AGENT, self.now)
        self.thought, self.tools, self.edge, self.caller = [], [], [], []
        self.said: list[Heard] = []
        self.speech, self.digits = [], []
        self.floor = 0
        self.seq = 0
        self.facts, self.runs, self.ends, self.notes = [], [], [], []
        self.snapshots = [None]
        self.flushed = 0
        self.steps = 0
        self.tell(Opened(0))

    # --- what the brain does ---

    def tell(self, event):
        self.now += 0.05
        if isinstance(event, TimerFired):
            self.now = max(self.now, self.machine.due.get(event.timer, self.now))
        before, ran = self.machine.boundary, len(self.runs)
        for order in self.machine.handle(event, self.now):
            self.carry_out(order)
        if self.machine.boundary > before or len(self.snapshots) == 1:
            self.snapshots.append(encode(Kept(epoch=1, snapshot=self.machine.snapshot())))
        else:
            self.snapshots.append(self.snapshots[-1])
        if len(self.runs) > ran:
            self.flushed = len(self.snapshots) - 1  # no tool runs before that is stored

    def carry_out(self, order):
        match order:
            case Think(thought=thought, messages=messages):
                text, tool = model(messages)
                words = [f"{word} " for word in text.split()]
                self.thought = [ThoughtCame(thought, word) for word in words]
                if tool:
                    call = ToolCall(id=f"{tool}-1", name=tool, arguments="{}")
                    self.thought.append(ToolWanted(thought, call))
                self.thought.append(ThoughtEnded(thought))
            case RunTool(name=name, tool_call=tool_call):
                self.runs.append((name, tool_call))
                self.tools.append(ToolDone(tool_call=tool_call, name=name, took_ms=1.0, result="{}"))
            case Speak():
                self.speak(order)
            case Void(generation=generation):
                self.void(generation)
            case EndCall(reason=reason):
                self.ends.append(reason)
            case Emit(fact):
                self.facts.append(fact)

    # --- what the edge and the voice do ---

    def speak(self, order):
        self.floor = max(self.floor, order.generation)
        ids = order.generation, order.utterance
        known = next((one for one in self.said if (one.generation, one.utterance) == ids), None)
        if known is None:
            known = Heard(order)
            if order.generation >= max((one.generation for one in self.said), default=0):
                self.said.append(known)
        else:
            assert known.open, f"a whole sentence got another piece: {known.text!r} + {order.text!r}"
            known.text += order.text
            known.open = order.goes_on

    def void(self, generation):
        self.floor = max(self.floor, generation)
        for one in self.said:
            if one.generation < generation and one.fate in {"waiting", "playing"}:
                if one.fate == "playing":
                    one.heard_ms = one.total_ms // 2
                one.fate = "cut"
                cut = PlayoutCut(
                    generation=one.generation,
                    utterance=one.utterance,
                    heard_ms=one.heard_ms,
                    total_ms=one.total_ms,
                    complete=True,
                )
                self.edge.append(cut)

    def play(self):
        """Let the next thing happen to what is being said; return whether there was any."""
        for one in self.said:
            ids = {"generation": one.generation, "utterance": one.utterance}
            if one.fate == "waiting":
                one.fate = "playing"
                self.tell(PlayoutStarted(**ids, synthesised_at=self.now, sent_at=self.now))
                return True
            if one.fate == "playing":
                if one.open:
                    return False
                one.fate, one.heard_ms = "finished", one.total_ms
                self.tell(PlayoutFinished(**ids, heard_ms=one.total_ms))
                return True
        return False

    # --- what the caller does ---

    def hear(self, message):
        if isinstance(message, DigitPressed):
            self.digits.append(message)
        else:
            self.speech.append(message)
        self.tell(message)

    def speak_next(self):
        self.line = line = self.lines.pop(0)
        self.now += 0.5
        if line == "12#":
            self.caller = [DigitPressed(digit=digit, at=self.now + at) for at, digit in enumerate(line)]
            return
        self.seq += 100
        ids = {"epoch": 1, "utterance": self.seq}
        at = self.now
        self.caller = [
            SpeechStarted(**ids, onset_at=at),
            SpeechStopped(**ids, endpoint_at=at),
            FinalTranscript(**ids, text=line, committed=0, onset_at=at, offset_at=at),
            TurnEnded(**ids, speech_ended_at=at, endpoint_at=at, final_at=at),
        ]

    # --- time ---

    def step(self):
        """Let one thing happen; return whether the call goes on."""
        self.steps += 1
        if self.steps in self.barge_in_at and self.lines and not self.caller:
            self.speak_next()
        ready = [name for name in ("thought", "tools", "edge", "caller") if getattr(self, name)]
        ready += ["play"] * 2
        self.random.shuffle(ready)
        for name in ready:
            if name == "play":
                if self.play():
                    return True
            elif name == "caller":
                self.hear(self.caller.pop(0))
                return True
            else:
                self.tell(getattr(self, name).pop(0))
                return True
        if self.ends or self.steps > 2000:
            return False
        if self.machine.state == "listening" and self.lines and "keys" not in self.machine.due:
            self.speak_next()
        else:
            self.tell(TimerFired(min(self.machine.due, key=self.machine.due.__getitem__)))
        return True

    def run(self, until=None):
        while self.steps != until and self.step():
            pass
        return self

    # --- the brain dies ---

    def die(self, lag=0, *, line="", recap=True, snapshot=True):
        """Have another brain take over with a snapshot as of `lag` events ago."""
        self.thought, self.tools = [], []
        self.edge = []  # told to nobody; the recap says it
        kept = self.snapshots[max(self.flushed, len(self.snapshots) - 1 - lag)] if snapshot else None
        claim = TookOver(
            generation=self.floor,
            snapshot=None if kept is None else decode(kept).snapshot,
            recap=self.recap() if recap else None,
            line=line,
        )
        if line and self.caller and not isinstance(self.caller[0], DigitPressed):
            if any(isinstance(message, FinalTranscript) for message in self.caller):
                self.lines.insert(0, self.line)  # what was not heard is said once more
            self.caller = []
        if line:
            for one in self.said:
                if one.fate in {"waiting", "playing"}:
                    one.fate = "gone"
        self.machine = Conversation(AGENT, 1000.0)
        self.snapshots, self.flushed = [None], 0
        self.tell(claim)
        return self

    def recap(self):
        speech = tuple(message for message in self.speech if not isinstance(message, PartialTranscript))
        return Recap(speech=speech[-12:], said=tuple(one.told() for one in self.said[-10:]), digits=tuple(self.digits))

    def voice_dies(self, reached_ms=0, *, told=True):
        """Have another voice speak: what plays breaks off after `reached_ms`, what waits has no audio."""
        reached = []
        for one in list(self.said):
            ids = {"generation": one.generation, "utterance": one.utterance}
            if one.fate == "playing":
                queued_ms = min(reached_ms, one.total_ms)
                complete = queued_ms == one.total_ms and not one.open
                reached.append(Reached(**ids, queued_ms=queued_ms, complete=complete))
                if not complete:
                    one.fate, one.heard_ms, one.lost = "broken" if queued_ms else "silent", queued_ms, True
                    if queued_ms:
                        self.edge.append(PlayoutCut(**ids, heard_ms=queued_ms, total_ms=queued_ms, complete=False))
            elif one.fate == "waiting":
                one.fate, one.lost = "silent", True
        if told:
            self.tell(VoiceChanged(voice=self.machine.voice + 1, reached=tuple(reached)))

    # --- what came of it ---

    @property
    def words(self):
        """All of answers and greeting that was heard."""
        others = {*AGENT.turns.fillers, AGENT.resumed}
        return [word for one in self.said if one.text not in others for word in one.sounded]

    @property
    def remembered(self):
        """All that a model is shown that the agent has said."""
        said = [message.heard for message in self.machine.history.messages() if isinstance(message, AgentSaid)]
        return " ".join(said).split()

    def of(self, kind):
        return [fact for fact in self.facts if isinstance(fact, kind)]

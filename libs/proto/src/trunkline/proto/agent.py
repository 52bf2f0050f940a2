"""An agent as data: who answers, with which voice, which providers and which rules.

These types are what an agent file is checked against and what a claim carries. Reading the file (TOML, environment
substitution, unknown keys) is the edge's business.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Text = Annotated[str, Meta(max_length=20_000)]
Line = Annotated[str, Meta(max_length=1_000)]


Milliseconds = Annotated[int, Meta(ge=50, le=60_000)]
Option = str | int | float | bool | None
"""A setting that only one provider understands."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long one attempt at a provider may be silent before somebody else is tried."""

    connect_ms: Milliseconds = 1_500
    """Until there is a connection."""
    first_ms: Milliseconds = 1_500
    """From the request to the first of the answer. For STT: from the end of an utterance to its final words."""
    stall_ms: Milliseconds = 1_500
    """Between two pieces of the answer. For STT: voice without any words, in ms of voice."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, and what to ask of it: common to the three stages."""

    provider: Name = "local"
    model: Line = ""
    """Empty: the adapter's default."""
    endpoint: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,62})?$")] = ""
    """Which service of that kind, where a provider serves many (``openai-compatible``: ``ollama``, ``groq``, …)."""
    options: dict[str, Option] = {}
    """Settings by the provider's own names, checked by its adapter."""


class Stt(Choice, frozen=True, kw_only=True):
    """How the agent hears. `grammar` (JSGF) tells the local provider what callers may say."""

    language: Line = "en"
    grammar: Text = ""
    keyterms: tuple[Line, ...] = ()
    """Words the recogniser should expect: names, products."""
    timeouts: Timeouts = Timeouts(connect_ms=2_000, first_ms=800, stall_ms=3_000)
    fallbacks: tuple["Stt", ...] = ()
    """Who takes over when this provider fails, in order. Their own `fallbacks` must be empty."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """Something a script listens for in what the caller says.

    Both expressions are searched in lower-case words without punctuation; of several matches the last counts, and of
    it the group ``value`` if there is one. A value heard later replaces an earlier one.
    """

    hear: Line = ""
    """Taken whenever it is heard."""
    hear_when_asked: Line = ""
    """Taken only while the agent's last question was about it (its rule lists the slot under `asks`). Tried first."""
    values: dict[str, str] = {}
    """What was heard → what to keep. Anything else is kept as heard."""
    proper: bool = False
    """A proper name: its words are kept with capitals."""
    forgets: tuple[str, ...] = ()
    """Slots and result fields that no longer stand once this slot has another value."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What a script answers, and when.

    What a script knows are its slots and the fields its tools returned (`Tool.returns`), in one set of names, and two
    more: ``heard`` (``clear`` when a slot was filled or a rule with `hear` was taken, ``unclear`` when neither,
    ``nothing`` when there were no words) and, after a tool, ``failed`` (``yes`` or ``no``).
    """

    hear: Line = ""
    """Regular expression searched in the caller's last words. Empty: whatever they were."""
    known: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    where: dict[str, str] = {}
    """Name → the value it must have."""
    after: Name | None = None
    """The tool whose result has just come in. Rules without it answer the caller, not a result."""
    remember: dict[str, str] = {}
    """Slot → what to put there; before `say`."""
    forget: tuple[str, ...] = ()
    """Names that no longer stand; after `say` and `arguments`."""
    asks: tuple[str, ...] = ()
    """Slots that `say` asks the caller for."""
    say: Line = ""
    """With ``{name}`` filled in, and markers such as ``[END_CALL]``."""
    tool: Name | None = None
    arguments: dict[str, str] = {}
    """Argument → text, with ``{name}`` filled in."""
    goes_on: bool = False
    """The next rule that holds speaks as well."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """A dialogue that needs no model. The first rule that holds answers."""

    slots: dict[str, Slot] = {}
    rules: tuple[Rule, ...] = ()
    fallback: Line = "Sorry, I did not understand that. Could you say it again?"
    """Said when no rule holds."""


class Llm(Choice, frozen=True, kw_only=True):
    """How the agent thinks."""

    provider: Name = "script"
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    script: Script | None = None
    timeouts: Timeouts = Timeouts(connect_ms=1_000, first_ms=1_500, stall_ms=1_500)
    fallbacks: tuple["Llm", ...] = ()
    """Who is asked when this provider fails, in order. Their own `fallbacks` must be empty."""


class Tts(Choice, frozen=True, kw_only=True):
    """How the agent sounds. `speed` is a factor on the voice's own pace."""

    voice: Line = ""
    """Empty: the adapter's default."""
    language: Line = ""
    speed: Annotated[float, Meta(ge=0.5, le=2)] = 1.0
    pitch: Annotated[int, Meta(ge=0, le=99)] = 50
    timeouts: Timeouts = Timeouts(connect_ms=1_000, first_ms=900, stall_ms=900)
    fallbacks: tuple["Tts", ...] = ()
    """Who speaks when this provider fails, in order. Their own `fallbacks` must be empty."""


class TurnTaking(msgspec.Struct, frozen=True, kw_only=True):
    """When the floor changes hands."""

    endpoint_silence_ms: Annotated[int, Meta(ge=100, le=5_000)] = 600
    """Silence after which the caller has finished."""
    min_speech_ms: Annotated[int, Meta(ge=32, le=2_000)] = 96
    """Voice shorter than this is no speech."""
    vad_threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    barge_in: bool = True
    reprompt_after_s: Annotated[float, Meta(ge=1, le=120)] = 8.0
    """Silence of both parties after which `reprompt` is said."""
    reprompt: Line = "Are you still there?"
    max_reprompts: Annotated[int, Meta(ge=0, le=10)] = 2
    """Reprompts without an answer after which the agent says `silence_goodbye` and hangs up."""
    silence_goodbye: Line = "I cannot hear you, so I will hang up now. Goodbye."
    filler_after_ms: Annotated[int, Meta(ge=300, le=10_000)] = 1_200
    """How long the caller waits for an answer, from the end of the endpointing silence, before a filler is said."""
    filler_again_ms: Annotated[int, Meta(ge=300, le=10_000)] = 1_800
    """Silence after a filler before the next one."""
    fillers: tuple[Line, ...] = ("One moment, please.", "Just a moment longer.")
    """Said in order, the last one again and again, while an answer is late. Empty: never."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """Something the agent can do. `name` is looked up among the installed tools (entry points ``trunkline.tools``)."""

    name: Name
    description: Text = ""
    parameters: dict[str, object] = {}
    """JSON Schema of the arguments, as a model is shown it."""
    returns: tuple[str, ...] = ()
    """Fields of the result that a script may use."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    repeatable: bool = False
    """Whether it may be run again, under the same idempotency key, when the process that ran it died before it had the
    result. Otherwise the model is told that the outcome is not known."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What no call may exceed."""

    max_duration_s: Annotated[float, Meta(gt=0, le=14_400)] = 1_800.0
    max_tool_calls_per_turn: Annotated[int, Meta(ge=0, le=32)] = 8
    max_failed_turns: Annotated[int, Meta(ge=1, le=10)] = 2
    """Turns in a row that no provider could serve, after which the agent says its `farewell` and hangs up."""
    max_cost_usd: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    """What the providers of one call may cost before it is brought to a polite end."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a call needs to know about who answers it."""

    name: Name
    greeting: Line = ""
    prompt: Text = ""
    apology: Line = "Sorry, something went wrong on my side. Could you say that again?"
    """Said when no provider could hear, think or speak."""
    farewell: Line = "I am sorry, I cannot go on at the moment. Please call again later. Goodbye."
    """Said before hanging up when nothing works any more."""
    busy: Line = "I am sorry, all our lines are busy. Please call again later. Goodbye."
    """Said by the edge when no worker takes the call."""
    resumed: Line = "Sorry, the line was gone for a moment. Please go on."
    """Said when the caller is back after the line, or the process that held it, was lost."""
    spent: Line = "I am sorry, our time is up. Thank you for calling. Goodbye."
    """Said before hanging up when the call has cost `limits.max_cost_usd`."""
    stt: Stt = Stt()
    llm: Llm = Llm()
    tts: Tts = Tts()
    turns: TurnTaking = TurnTaking()
    tools: tuple[Tool, ...] = ()
    limits: Limits = Limits()

    @property
    def clips(self) -> tuple[str, ...]:
        """What the agent says word for word in any call: synthesised once, and kept."""
        turns = self.turns
        lines = (self.greeting, self.apology, self.farewell, self.busy, self.spent, self.resumed, *turns.fillers)
        return tuple(dict.fromkeys(line for line in (*lines, turns.reprompt, turns.silence_goodbye) if line))

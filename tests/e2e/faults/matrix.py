"""Every adapter under every fault: the agents that put it there, and what their callers must and must not hear."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from trunkline.call import CallResult
from trunkline.proto.events import CallerSpoke, Fact, ProviderFailed
from trunkline.testing.providers.server import Fault

from . import chords
from .cast import PHRASE
from .chords import ANSWER, Word

ENDPOINT_S: Final = 0.3
LOADED_S: Final = 0.3
"""What a machine of two cores may add, on which twenty callers, eight services and ten vendors run at once."""
FIRST_SOUND_S: Final = ENDPOINT_S + 1.5 + LOADED_S
LONGEST_SILENCE_S: Final = ENDPOINT_S + 2.0 + LOADED_S

Stage = Literal["stt", "llm", "tts"]
Choice = dict[str, object]


class Adapter(NamedTuple):
    """One that is put to the test; `{}` in a setting takes the fault's mark."""

    stage: Stage
    name: str
    choice: Choice
    fallback: Choice


SPARE: Final[Mapping[Stage, Choice]] = {
    "stt": {"provider": "openai-compatible", "endpoint": "spare", "model": "whisper-1"},
    "llm": {"provider": "openai-compatible", "endpoint": "spare", "model": "llama-4"},
    "tts": {"provider": "openai-compatible", "endpoint": "spare", "model": "gpt-4o-mini-tts", "voice": "alloy"},
}
_NOVA: Final[Choice] = {"provider": "deepgram", "model": "nova-3"}
_WHISPER: Final[Choice] = {"provider": "openai", "model": "gpt-4o-mini-transcribe"}
_CLAUDE: Final[Choice] = {"provider": "anthropic", "model": "claude-haiku-4-5"}
_GPT: Final[Choice] = {"provider": "openai", "model": "gpt-4.1-mini"}
_AURA: Final[Choice] = {"provider": "deepgram", "voice": "aura-2-thalia-en"}
_ALLOY: Final[Choice] = {"provider": "openai", "model": "gpt-4o-mini-tts", "voice": "alloy"}

ADAPTERS: Final = (
    Adapter("stt", "deepgram", {"provider": "deepgram", "model": "nova-3{}"}, _WHISPER),
    Adapter("stt", "deepgram-flux", {"provider": "deepgram-flux", "model": "flux-general-en{}"}, _WHISPER),
    Adapter("stt", "openai", {"provider": "openai", "model": "gpt-4o-mini-transcribe{}"}, _NOVA),
    Adapter("stt", "openai-compatible", {**SPARE["stt"], "endpoint": "groq", "model": "whisper-1{}"}, _NOVA),
    Adapter("stt", "elevenlabs", {"provider": "elevenlabs", "keyterms": ["garden{}"]}, _NOVA),
    Adapter("llm", "openai", {"provider": "openai", "model": "gpt-4.1-mini{}"}, _CLAUDE),
    Adapter("llm", "openai-responses", {"provider": "openai-responses", "model": "gpt-4.1-mini{}"}, _CLAUDE),
    Adapter("llm", "openai-compatible", {**SPARE["llm"], "endpoint": "groq", "model": "llama-4{}"}, _CLAUDE),
    Adapter("llm", "anthropic", {"provider": "anthropic", "model": "claude-haiku-4-5{}"}, _GPT),
    Adapter("llm", "google", {"provider": "google", "model": "gemini-2.5-flash{}"}, _GPT),
    Adapter("tts", "elevenlabs", {"provider": "elevenlabs", "model": "eleven_flash_v2_5{}"}, _AURA),
    Adapter(
        "tts",
        "elevenlabs-http",
        {"provider": "elevenlabs", "model": "eleven_flash_v2_5{}", "options": {"transport": "http"}},
        _AURA,
    ),
    Adapter("tts", "deepgram", {"provider": "deepgram", "voice": "aura-2-thalia-en{}"}, _ALLOY),
    Adapter("tts", "openai", {"provider": "openai", "model": "gpt-4o-mini-tts{}", "voice": "alloy"}, _AURA),
    Adapter("tts", "fish", {"provider": "fish", "model": "s1{}"}, _AURA),
)

KINDS: Final[Mapping[Fault, frozenset[str]]] = {
    Fault.REFUSE: frozenset({"connect", "dropped"}),
    Fault.UNAUTHORISED: frozenset({"unauthorised"}),
    Fault.THROTTLED: frozenset({"throttled"}),
    Fault.SERVER_ERROR: frozenset({"server"}),
    Fault.HANG: frozenset({"connect", "first-byte"}),
    Fault.STALL: frozenset({"first-byte", "stall", "silent"}),
    Fault.DROP: frozenset({"dropped"}),
    Fault.HALF_CLOSE: frozenset({"dropped", "first-byte", "stall"}),
    Fault.MALFORMED: frozenset({"malformed", "dropped"}),
    Fault.UNKNOWN_TYPE: frozenset(),
    Fault.SLOW_LORIS: frozenset({"first-byte", "stall", "silent", "malformed"}),
}
"""How the records may call a fault; the first bytes of an answer and its midst are not the same to every adapter."""


TOGETHER: Final = (Fault.REFUSE, Fault.THROTTLED)
"""Faults that one vendor's models share: none of them can take over, and none may be asked beside them."""


class Cell(NamedTuple):
    """One adapter under one fault. `fault` is None for a call on which nothing fails."""

    adapter: Adapter
    fault: Fault | None

    @property
    def agent(self) -> str:
        """The name of its agent."""
        return f"{self.adapter.stage}-{self.adapter.name}-{self.fault or 'none'}"

    @property
    def scenario(self) -> str:
        """The scenario of its caller."""
        return "after-the-greeting" if self.adapter.stage != "tts" else "first"


def cells(adapters: Sequence[Adapter], faults: Sequence[Fault | None]) -> Iterator[Cell]:
    """Yield all of them, those of one stage not in a row."""
    for fault in faults:
        for adapter in adapters:
            yield Cell(adapter, fault)


def write_agent(folder: Path, cell: Cell) -> None:
    """Write the agent whose first provider fails as `cell` says."""
    adapter = cell.adapter
    mark = "" if cell.fault in {None, Fault.REFUSE} else f"~{cell.fault}"
    fallback = SPARE[adapter.stage] if cell.fault in TOGETHER else adapter.fallback
    failing: Choice = msgspec.json.decode(msgspec.json.encode(adapter.choice).replace(b"{}", mark.encode()))
    failing["fallbacks"] = [fallback]
    stages: dict[Stage, Choice] = {
        "stt": {"provider": "bench"},
        "llm": {"provider": "script", "script": {"fallback": ANSWER}},
        "tts": dict(SPARE["tts"]),
    }
    stages[adapter.stage] = failing
    # A voice that fails is asked for the answer alone: not for clips, whose failures would come before.
    more = {"greeting": "", "apology": "", "farewell": "", "spent": "", "resumed": ""} if adapter.stage == "tts" else {}
    write(folder, cell.agent, stages, more, fillers=() if adapter.stage == "tts" else chords.FILLERS)


def write(
    folder: Path,
    name: str,
    stages: Mapping[Stage, Choice],
    more: Mapping[str, object],
    fillers: Sequence[str] = chords.FILLERS,
) -> None:
    """Write an agent file. All that the agent can say are words that can be read back."""
    agent = {
        "name": name,
        "prompt": "Tell what grows here.",
        "greeting": chords.GREETING,
        "apology": chords.APOLOGY,
        "farewell": chords.FAREWELL,
        "spent": chords.SPENT,
        "resumed": "",
        "busy": "",
        **stages,
        "turns": {
            "endpoint_silence_ms": int(ENDPOINT_S * 1_000),
            "fillers": fillers,
            "reprompt_after_s": 60.0,
            "reprompt": "",
            "silence_goodbye": "",
        },
        **more,
    }
    (folder / f"{name}.toml").write_text("".join(f"{key} = {_toml(value)}\n" for key, value in agent.items()))


def _toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(_toml(inner) for inner in value) + "]"
        case _:
            return json.dumps(value)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell."""

    adapter: str
    fault: str
    first_ms: int | None
    """From the caller's last sound to the agent's next: words or a filler."""
    silence_ms: int | None
    """The longest one until the answer was complete."""
    answer_ms: int | None
    """From the caller's last sound to the answer's first word."""
    filler: bool
    spoken_by: tuple[str, ...]
    kinds: tuple[str, ...]
    """What was recorded of the failing stage."""
    wrong: tuple[str, ...]
    heard: str
    call: str


def judge(cell: Cell, result: CallResult, facts: Sequence[Fact]) -> Verdict:
    """Compare what was heard with what should have been."""
    wrong = [f"the caller: {result.problem}"] if result.problem else []
    heard = chords.listen(result.right)
    said_end_s = result.spoken[-1].end_s if result.spoken else 0.0
    answer = heard.after(said_end_s)
    gaps = chords.gaps_s(answer, said_end_s)
    wrong += _wrong_with(answer, gaps, heard.both_ms)
    turns = [fact.text for fact in facts if isinstance(fact, CallerSpoke)]
    if cell.adapter.stage == "stt" and turns != [PHRASE]:
        wrong.append(f"turns of the caller: {turns}")
    stage = {"llm": "brain"}.get(cell.adapter.stage, cell.adapter.stage)
    failed = [fact for fact in facts if isinstance(fact, ProviderFailed)]
    wrong += [f"a bystander failed: {fact}" for fact in failed if fact.stage != stage]
    provider = str(cell.adapter.choice["provider"])
    kinds = tuple(fact.kind for fact in failed if fact.stage == stage and fact.provider.partition("/")[0] == provider)
    expected = KINDS[cell.fault] if cell.fault is not None else frozenset()
    # The two ways to ElevenLabs have one breaker, and one of them finds it open when both are throttled.
    unasked = cell.fault is Fault.THROTTLED and provider == "elevenlabs" and not kinds
    if expected and not expected & set(kinds) and not unasked:
        wrong.append(f"recorded {kinds or 'nothing'}, expected one of {sorted(expected)}")
    if not expected and kinds:
        wrong.append(f"recorded {kinds}, expected nothing")
    first_word = next((word for word in answer if word.text in chords.words_of(ANSWER)), None)
    return Verdict(
        adapter=f"{cell.adapter.stage} {cell.adapter.name}",
        fault=str(cell.fault or "none"),
        first_ms=round(gaps[0] * 1e3) if gaps else None,
        silence_ms=round(max(gaps) * 1e3) if gaps else None,
        answer_ms=round((first_word.start_s - said_end_s) * 1e3) if first_word else None,
        filler=any(word.text in chords.words_of(" ".join(chords.FILLERS)) for word in answer),
        spoken_by=tuple(dict.fromkeys(word.voice for word in answer)),
        kinds=kinds,
        wrong=tuple(wrong),
        heard=chords.told(answer),
        call=result.call,
    )


def _wrong_with(answer: Sequence[Word], gaps: Sequence[float], both_ms: int) -> list[str]:
    wrong = []
    if not answer:
        return ["nothing was heard"]
    if gaps[0] > FIRST_SOUND_S:
        wrong.append(f"first sound after {gaps[0]:.2f} s, allowed are {FIRST_SOUND_S:.2f} s")
    if max(gaps) > LONGEST_SILENCE_S:
        wrong.append(f"a silence of {max(gaps):.2f} s, allowed are {LONGEST_SILENCE_S:.2f} s")
    if both_ms:
        wrong.append(f"two voices at once for {both_ms} ms")
    said = chords.mended([word for word in answer if word.text not in chords.words_of(" ".join(chords.FILLERS))])
    if [word.text for word in said] != chords.words_of(ANSWER):
        wrong.append(f"heard {' '.join(word.text for word in said)!r}")
    torn = [word.text for word in said if not word.whole]
    if len(torn) > 1:
        wrong.append(f"words not whole: {' '.join(torn)}")
    return wrong


def table(verdicts: Sequence[Verdict]) -> str:
    """Return what was measured, a line for each adapter and a column for each fault.

    Shown is the time in ms from the caller's last sound to the agent's next; ``f`` marks a filler, ``!`` what is wrong.
    """
    faults = list(dict.fromkeys(verdict.fault for verdict in verdicts))
    found = {(verdict.adapter, verdict.fault): verdict for verdict in verdicts}
    lines = ["| adapter | " + " | ".join(faults) + " |", "|---|" + "---:|" * len(faults)]
    for adapter in sorted(dict.fromkeys(verdict.adapter for verdict in verdicts)):
        shown = []
        for fault in faults:
            verdict = found.get((adapter, fault))
            mark = "" if verdict is None else ("f" if verdict.filler else "") + ("!" if verdict.wrong else "")
            shown.append("" if verdict is None else f"{verdict.first_ms}{mark}")
        lines.append(f"| {adapter} | " + " | ".join(shown) + " |")
    return "\n".join(lines)

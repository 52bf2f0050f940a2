"""What a conversation must have been, by nothing but what the edge saw of it: its snapshot is out of reach. Pure.

The edge does not tell who spoke first, so words and answers are paired from the newest back: an agent answers every
turn of the caller's, in a generation of its own. Older turns than the edge remembers are lost, with their number, and
so are the tools that ran.
"""

from itertools import groupby

from trunkline.brain.heard import Speaking, heard_words, timed_words
from trunkline.brain.lines import fixed_lines
from trunkline.brain.llm import CallerSaid
from trunkline.brain.snapshot import Mouth, Snapshot, Spoke
from trunkline.brain.utterance import Fate, Utterance
from trunkline.proto.agent import Agent
from trunkline.proto.ids import Generation, TurnId, UtteranceId
from trunkline.proto.messages import FinalTranscript, Recap, TurnEnded, Uttered


def snapshot(recap: Recap, agent: Agent, generation: Generation, greeting: UtteranceId) -> Snapshot:
    """Return what would have been kept, as far as can be told.

    Args:
        recap: what the edge saw.
        agent: who answers.
        generation: the highest anybody has seen.
        greeting: the utterance as which the edge says the greeting by itself.
    """
    said = [(one, agent.greeting if one.utterance == greeting and not one.text else one.text) for one in recap.said]
    spoken = [(one, text) for one, text in said if text and text not in agent.turns.fillers]
    groups = [
        [_utterance(one, text) for one, text in group]
        for _, group in groupby(spoken, key=lambda pair: pair[0].generation)
    ]
    lines = fixed_lines(agent)
    answers = [at for at, group in enumerate(groups) if any(utterance.text not in lines for utterance in group)]
    newest = spoken[-1][0].generation if spoken else Generation(0)
    turns = _turns(recap)
    open_end = bool(groups) and newest == generation and any(_coming(utterance) for utterance in groups[-1])
    answered = len(answers) >= len(turns) or (open_end and bool(answers) and answers[-1] == len(groups) - 1)
    told, rest = (turns, []) if answered else (turns[:-1], turns[-1:])
    history: list[CallerSaid | Spoke] = []
    asked_at = dict(zip(reversed(answers), reversed(told), strict=False))
    early = told[: len(told) - len(asked_at)]
    for _, words in early:
        history.append(CallerSaid(text=words))
    for at, group in enumerate(groups):
        if at in asked_at:
            history.append(CallerSaid(text=asked_at[at][1]))
        history.append(Spoke(tuple(group)))
    saying = None
    if groups and (open_end or newest < generation):
        texts = [utterance.text for utterance in groups[-1]]
        turn = Speaking(TurnId(len(told)), newest)
        turn.utterances = groups[-1]
        turn.answers = any(text not in lines for text in texts)
        turn.complete = not turn.answers
        turn.end_reason = None if turn.answers else lines[texts[-1]]
        saying = turn.kept()
    return Snapshot(
        state="speaking" if open_end else "listening",
        turn=TurnId(len(told)),
        history=tuple(history),
        mouth=Mouth(
            generation=newest if open_end else max(newest, generation),
            used=True,
            utterance=max((one.utterance for one in recap.said), default=UtteranceId(0)),
            saying=saying,
            fillers=tuple((one.utterance, text) for one, text in said if text in agent.turns.fillers),
        ),
        heard_upto=_before(recap, rest),
        # Nobody knows which tools ran for what is being said: none may run twice.
        tools_this_turn=agent.limits.max_tool_calls_per_turn if saying is not None and saying.answers else 0,
    )


def _turns(recap: Recap) -> list[tuple[UtteranceId, str]]:
    """Return the caller's turns that are over and had words: the utterance that ended each, and all its words."""
    turns: list[tuple[UtteranceId, str]] = []
    words: list[str] = []
    for message in recap.speech:
        match message:
            case FinalTranscript():
                words.append(message.text)
            case TurnEnded():
                if words:
                    turns.append((message.utterance, " ".join(words)))
                words = []
            case _:
                pass
    return turns


def _before(recap: Recap, rest: list[tuple[UtteranceId, str]]) -> UtteranceId:
    """Return the last utterance that needs not be told again: all that ended before `rest`."""
    first = min((utterance for utterance, _ in rest), default=None)
    ended = [message.utterance for message in recap.speech if isinstance(message, TurnEnded)]
    return max((one for one in ended if first is None or one < first), default=UtteranceId(-1))


def _utterance(one: Uttered, text: str) -> Utterance:
    utterance = Utterance(id=one.utterance, text=text, said_at=0.0, open=one.open, points=one.points)
    match one.fate:
        case "finished":
            utterance.fate, utterance.heard = Fate.FINISHED, text if one.heard_ms else ""
        case "cut":
            utterance.fate = Fate.CUT
            if utterance.timed and one.heard_ms < one.queued_ms:
                utterance.heard = timed_words(text, one.heard_ms, one.points)
            else:
                utterance.heard = heard_words(text, one.heard_ms, one.queued_ms, complete=one.complete)
        case _:
            pass
    return utterance


def _coming(utterance: Utterance) -> bool:
    return utterance.fate in {Fate.SAID, Fate.STARTED}

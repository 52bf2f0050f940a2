"""Place one call, live through its scenario, judge it: everything else in this package, put together."""

import contextlib
from collections.abc import Callable, Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from trunkline.call.caller import Clips, ScriptedCaller
from trunkline.call.errors import BadTarget
from trunkline.call.judge import Evidence, audible, judge
from trunkline.call.scenario import Scenario, Step
from trunkline.call.seen import CallResult, Seen
from trunkline.call.speech import prepare_speech
from trunkline.call.watch import Watch, watching
from trunkline.proto.ids import call_id_of
from trunkline.testing.twilio import RATE_HZ, Dial, LineEvent, new_call_sid, place

VOICE_HOOK = "/twilio/voice-hook"
_ENDED_ON_THE_BUS_S = 3.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to call, and how to watch."""

    url: str
    """Origin of the edge, or the full URL of its voice webhook."""
    agent: str | None = None
    """Wins over the scenario's."""
    token: str | None = None
    """Twilio auth token to sign with."""
    nats_url: str | None = None
    """Bus to watch."""

    def voice_url(self, scenario: Scenario) -> str:
        """Return the URL of the voice webhook for `scenario`.

        Raises:
            BadTarget: `url` is no http or https URL.
        """
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            usable = False
        if not usable:
            raise BadTarget(f"{self.url!r} is no URL to call: give one like http://127.0.0.1:8080")
        path = parts.path if parts.path.strip("/") else VOICE_HOOK
        agent = self.agent or scenario.agent
        query = "&".join(filter(None, (parts.query, urlencode({"agent": agent}) if agent else "")))
        return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _ignore(_: Seen) -> None:
    pass


async def place_call(
    target: Target,
    scenario: Scenario,
    *,
    observe: Callable[[Seen], None] | None = None,
    clips: Clips | None = None,
    call_sid: str | None = None,
) -> CallResult:
    """Call `target` and play `scenario`.

    Args:
        target: whom to call.
        scenario: what to do and to expect.
        observe: told everything as it happens, on the event loop: it must be quick.
        clips: the caller's speech if it is made already (`prepare_speech`), for many calls of one scenario.
        call_sid: a fresh one if None.

    Raises:
        BadTarget: there is no URL to call.
        CallFailed: the call could not be placed.
        BusUnavailable: the bus cannot be watched.
        NoVoice: the caller's words cannot be spoken.
    """
    dial = Dial(
        voice_url=target.voice_url(scenario),
        call_sid=call_sid or new_call_sid(),
        token=target.token,
        caller=scenario.caller.from_number,
        called=scenario.caller.to_number,
    )
    call = call_id_of("twilio", dial.call_sid)
    clips = await prepare_speech(scenario) if clips is None else clips
    tell = observe or _ignore
    seen: list[Seen] = []

    def note(what: Seen) -> None:
        seen.append(what)
        tell(what)

    def on_line(event: LineEvent) -> None:
        note(Seen(event.at_s, "line", event.what, event.text))

    caller = ScriptedCaller(scenario, clips, note)
    watch = Watch(lambda: caller.now_s, note)
    async with contextlib.AsyncExitStack() as stack:
        if target.nats_url:
            await stack.enter_async_context(watching(target.nats_url, call, watch))
        recording = await place(dial, caller, on_line)
        ended_by_agent = recording.ended_by == "application"
        if ended_by_agent:
            note(Seen(recording.left.size / RATE_HZ, "agent", "hung-up"))
        if target.nats_url:
            await watch.wait_ended(_ENDED_ON_THE_BUS_S)
    duration_s = recording.left.size / RATE_HZ
    problem = caller.problem or (_missed(caller.missed, recording.close_code) if ended_by_agent else None)
    evidence = Evidence(
        duration_s=duration_s,
        ended_by_agent=ended_by_agent,
        agent=audible(recording.right),
        spoken=caller.spoken,
        last_act_s=min(caller.last_act_s, duration_s),
        problem=problem,
        bus=watch.record() if target.nats_url else None,
    )
    return CallResult(
        scenario=scenario.name,
        call=call,
        call_sid=dial.call_sid,
        started_at=recording.started_at,
        duration_s=duration_s,
        ended_by="agent" if ended_by_agent else "caller",
        close_code=recording.close_code,
        problem=problem,
        spoken=tuple(caller.spoken),
        verdicts=tuple(judge(scenario.expect, evidence)),
        log=tuple(seen),
        latest_ms=recording.latest_ms,
        streams=recording.streams,
        gaps=recording.gaps,
        said=recording.said,
        left=recording.left,
        right=recording.right,
    )


def _missed(steps: Sequence[Step], close_code: int) -> str | None:
    if not steps:
        return None
    first = steps[0]
    return f"the far side hung up (close code {close_code}) before {first.action} = {getattr(first, first.action)!r}"

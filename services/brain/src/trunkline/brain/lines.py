"""What an agent says word for word besides its answers. Pure."""

from typing import Final

from trunkline.proto.agent import Agent

PROVIDERS_FAILED: Final = "providers-failed"
SILENCE: Final = "silence-timed-out"


def fixed_lines(agent: Agent) -> dict[str, str | None]:
    """Return the lines that are a turn of their own, each with the reason for which the call ends after it."""
    return {
        agent.greeting: None,
        agent.apology: None,
        agent.resumed: None,
        agent.turns.reprompt: None,
        agent.turns.silence_goodbye: SILENCE,
        agent.farewell: PROVIDERS_FAILED,
    }

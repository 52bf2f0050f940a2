"""What Gemini is sent, and what the pieces of its answer mean. Pure: it knows no connection and no SDK.

Field names are those of the SDK's types, which writes them on the wire its own way.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final, Literal

import msgspec

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmRequest,
    Message,
    SystemNote,
    ToolAnswered,
    ToolAsked,
    Usage,
)
from trunkline.proto.agent import Llm
from trunkline.proto.ids import ToolCallId
from trunkline.providers.errors import Rejected, Transient

DEFAULT_MODEL: Final = "gemini-3.8-flash"
_BEGINS: Final = "(the call begins)"
_WORDLESS: Final = "(the caller made a sound without words)"
_SILENT: Final = "(the caller says nothing)"
_RUNNING: Final = "no answer yet"
_NO_SIGNATURE: Final = b"skip_thought_signature_validator"
"""What Google has clients send with a function call whose signature they do not have: Gemini 3 wants one."""

# --- what is asked ----------------------------------------------------------------------------------------------------


def config_of(request: LlmRequest) -> dict[str, Any]:
    """Return the configuration of `request`: all of it but the model and the history."""
    llm = request.llm
    config: dict[str, Any] = {
        "automatic_function_calling": {"disable": True},  # tools are run elsewhere
        "automatic_continuation": False,  # an answer so long is cut
        "temperature": llm.temperature,
        "max_output_tokens": llm.max_tokens,
        "thinking_config": _thinking(llm),
    }
    if request.prompt.strip():
        config["system_instruction"] = request.prompt
    if request.tools:
        declared = [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters_json_schema": tool.parameters or {"type": "object", "properties": {}},
            }
            for tool in request.tools
        ]
        config["tools"] = [{"function_declarations": declared}]
    return config | {name: llm.options[name] for name in ("top_p", "top_k", "seed") if name in llm.options}


def _thinking(llm: Llm) -> dict[str, Any] | None:
    """Return how much is to be thought: as the agent says, else as little as the model's family allows."""
    options, model = llm.options, llm.model or DEFAULT_MODEL
    if (level := options.get("thinking_level")) is not None:
        return {"thinking_level": str(level).upper()}
    if (budget := options.get("thinking_budget")) is not None:
        return {"thinking_budget": budget}
    if model.startswith("gemini-2.5-flash"):
        return {"thinking_budget": 0}
    if model.startswith("gemini-2.5-pro"):
        return {"thinking_budget": 128}
    if model.startswith(("gemini-1", "gemini-2")) or not model.startswith("gemini-"):
        return None
    return {"thinking_level": "LOW"}


def contents_of(history: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return `history` as contents: the caller's first and last, and every function call with its response after it.

    A tool that was asked for and has not answered is said to run still. Tools asked for in a row are one content's.
    """
    contents: list[dict[str, Any]] = []
    answers = {message.tool_call: message for message in history if isinstance(message, ToolAnswered)}
    asked = {message.tool_call for message in history if isinstance(message, ToolAsked)}
    for in_a_row, group in groupby(history, lambda message: isinstance(message, ToolAsked)):
        messages = list(group)
        if in_a_row:
            calls = [message for message in messages if isinstance(message, ToolAsked)]
            _add(contents, "model", [_call(call, first=at == 0) for at, call in enumerate(calls)])
            responses = [_response(call, answers.get(call.tool_call)) for call in calls]
            contents.append({"role": "user", "parts": responses})
            continue
        for message in messages:
            if not (isinstance(message, ToolAnswered) and message.tool_call in asked) and (text := _words(message)):
                _add(contents, "model" if isinstance(message, AgentSaid) else "user", [{"text": text}])
    if not contents or contents[-1]["role"] == "model":
        _add(contents, "user", [{"text": _SILENT if contents else _BEGINS}])
    return contents


def _add(contents: list[dict[str, Any]], role: Literal["user", "model"], parts: list[dict[str, Any]]) -> None:
    if not contents and role == "model":
        contents.append({"role": "user", "parts": [{"text": _BEGINS}]})
    # Responses are counted against the calls before them, so that nothing else stands beside them.
    if contents and contents[-1]["role"] == role and "function_response" not in contents[-1]["parts"][0]:
        contents[-1]["parts"] += parts
    else:
        contents.append({"role": role, "parts": parts})


def _words(message: Message) -> str:
    match message:
        case CallerSaid(text=text):
            return text.strip() or _WORDLESS
        case AgentSaid(heard=heard):
            return heard.strip()
        case SystemNote(text=text):
            return f"[{text.strip()}]" if text.strip() else ""
        case ToolAsked(name=name):
            return f"[{name}]"
        case ToolAnswered(name=name, result=result, error=error):
            return f"[{name}: {error or result}]"


def _call(asked: ToolAsked, *, first: bool) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(asked.arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        arguments = {"text": asked.arguments}
    part: dict[str, Any] = {"function_call": {"id": asked.tool_call, "name": asked.name, "args": arguments}}
    return part | {"thought_signature": _NO_SIGNATURE} if first else part


def _response(asked: ToolAsked, answered: ToolAnswered | None) -> dict[str, Any]:
    if answered is None:
        response: dict[str, Any] = {"output": _RUNNING}
    elif answered.error:
        response = {"error": answered.error}
    else:
        try:
            response = {"output": msgspec.json.decode(answered.result)}
        except msgspec.DecodeError:
            response = {"output": answered.result}
    return {"function_response": {"id": asked.tool_call, "name": asked.name, "response": response}}


def made_id(request: LlmRequest, n: int) -> ToolCallId:
    """Return an id for the `n`-th call of an answer, counted from 1, that came without one.

    The same history names the call the same, so that a worker that takes over does not act twice.
    """
    asked = sum(isinstance(message, ToolAsked) for message in request.messages)
    return ToolCallId(f"g{request.turn}-{asked + n}")


# --- what comes back --------------------------------------------------------------------------------------------------

_REFUSED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "ESCALATION",
        "PUP_LIMITED_DISABLED",
        "MODEL_ARMOR",
    }
)
_SENSELESS: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
)


def finished(reason: str, calls: int, counts: Mapping[str, int | None]) -> Finished:
    """Return how an answer ended.

    Args:
        reason: the finish reason of its candidate.
        calls: functions that were called in it.
        counts: the usage metadata by the SDK's names.

    Raises:
        Transient: it makes no sense.
        Rejected: the history lacks something.
    """
    if reason in _SENSELESS:
        raise Transient(f"the answer ended with {reason}", "malformed")
    if reason == "MISSING_THOUGHT_SIGNATURE":
        raise Rejected(reason)
    usage = Usage(
        input_tokens=_sum(counts, ("prompt_token_count", "tool_use_prompt_token_count")),
        cached_tokens=_sum(counts, ("cached_content_token_count",)),
        output_tokens=_sum(counts, ("candidates_token_count", "thoughts_token_count")),
    )
    if reason in _REFUSED:
        return Finished(reason="refused", usage=usage)
    if reason in {"MAX_TOKENS", "CONTINUATION"}:
        return Finished(reason="length", usage=usage)
    return Finished(reason="tool-calls" if calls else "stop", usage=usage)


def _sum(counts: Mapping[str, int | None], names: Iterable[str]) -> int:
    return sum(counts.get(name) or 0 for name in names)

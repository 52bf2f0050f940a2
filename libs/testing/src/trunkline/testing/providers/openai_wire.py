"""Requests and answers of chat completions and Responses as OpenAI's API has them: objects from and to JSON. Pure."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from trunkline.testing.providers.content import Asked, Reply, Said

_TOKEN: Final = 4
_CREATED: Final = 1_750_000_000


class BadRequest(ValueError):
    """A request the API refuses with 400; the text is what it says."""


def pieces(text: str) -> list[str]:
    """Return the tokens of `text`."""
    return [text[at : at + _TOKEN] for at in range(0, len(text), _TOKEN)]


def shortened(reply: Reply, most: int | None) -> tuple[Reply, bool]:
    """Return `reply` with no more than `most` tokens of text, and without tools if that cut it; and whether it did."""
    if most is None or len(pieces(reply.text)) <= most:
        return reply, False
    return Reply(reply.text[: most * _TOKEN]), True


# --- requests ---------------------------------------------------------------------------------------------------------


def chat_asked(body: dict[str, Any]) -> Asked:
    """Return what a request to chat completions asks.

    Raises:
        BadRequest: something is missing, a tool that was asked for has no answer right behind, or there is none to
            be asked for side by side.
    """
    history: list[Said] = []
    open_calls: dict[str, str] = {}
    for message in _needed(body, "messages"):
        role, content = message.get("role"), _text(message.get("content"))
        if open_calls and role != "tool":
            break
        match role:
            case "system" | "developer":
                history.append(Said("system", content))
            case "user":
                history.append(Said("caller", content))
            case "assistant":
                if content:
                    history.append(Said("agent", content))
                for call in message.get("tool_calls") or ():
                    function = call["function"]
                    open_calls[call["id"]] = function["name"]
                    history.append(Said("tool-asked", function["arguments"], function["name"], call["id"]))
            case "tool":
                call_id = message.get("tool_call_id")
                if call_id not in open_calls:
                    raise BadRequest(
                        "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                        "'tool_calls'."
                    )
                history.append(Said("tool-answered", content, open_calls.pop(call_id), call_id))
            case _:
                raise BadRequest(f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', …")
    if open_calls:
        raise BadRequest(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}"
        )
    tools = tuple(tool["function"]["name"] for tool in body.get("tools") or ())
    if "parallel_tool_calls" in body and not tools:
        raise BadRequest(
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified."
        )
    return Asked(_needed(body, "model"), tuple(history), tools)


def responses_asked(body: dict[str, Any]) -> Asked:
    """Return what a request to Responses asks.

    Raises:
        BadRequest: something is missing, or a tool that was asked for has no answer.
    """
    history = [Said("system", body["instructions"])] if body.get("instructions") else []
    names: dict[str, str] = {}
    answered: set[str] = set()
    given = _needed(body, "input")
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "message":
                who = {"user": "caller", "assistant": "agent"}.get(item["role"], "system")
                history.append(Said(who, _text(item["content"])))  # type: ignore[arg-type] # one of three literals
            case "function_call":
                names[item["call_id"]] = item["name"]
                history.append(Said("tool-asked", item["arguments"], item["name"], item["call_id"]))
            case "function_call_output":
                call_id = item["call_id"]
                if call_id not in names:
                    raise BadRequest(f"No tool call found for function call output with call_id {call_id}.")
                answered.add(call_id)
                history.append(Said("tool-answered", _text(item["output"]), names[call_id], call_id))
            case kind:
                raise BadRequest(f"Invalid value: '{kind}'.")
    for call_id in names.keys() - answered:
        raise BadRequest(f"No tool output found for function call {call_id}.")
    return Asked(_needed(body, "model"), tuple(history), tuple(tool["name"] for tool in body.get("tools") or ()))


def _needed(body: dict[str, Any], name: str) -> Any:
    if not body.get(name):
        raise BadRequest(f"Missing required parameter: '{name}'.")
    return body[name]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


# --- chat completions -------------------------------------------------------------------------------------------------


def chat_chunks(
    model: str,
    number: int,
    reply: Reply,
    cut: bool,  # noqa: FBT001 - a field of what was thought
    read: tuple[int, int],
    *,
    with_usage: bool,
    interleaved: bool,
) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a streamed answer."""
    frame = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": _CREATED, "model": model}
    frame |= {"service_tier": "default", "system_fingerprint": None}
    usage = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            **frame,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
            **usage,
        }

    text = reply.text
    yield chunk({"role": "assistant", "content": "" if text or not reply.tools else None, "refusal": None})
    for piece in pieces(text):
        yield chunk({"content": piece})
    calls = [list(_tool_deltas(number, at, *tool)) for at, tool in enumerate(reply.tools)]
    by_turns = itertools.chain.from_iterable(itertools.zip_longest(*calls))
    for delta in by_turns if interleaved else itertools.chain.from_iterable(calls):
        if delta is not None:
            yield chunk({"tool_calls": [delta]})
    yield chunk({}, _finish(reply, cut=cut))
    if with_usage:
        yield {**frame, "choices": [], "usage": _chat_usage(reply, read)}


def chat_whole(model: str, number: int, reply: Reply, cut: bool, read: tuple[int, int]) -> dict[str, Any]:  # noqa: FBT001 - as above
    """Return an answer that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None, "annotations": []}
    if reply.tools:
        message["tool_calls"] = [
            {"id": _call(number, at), "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (name, arguments) in enumerate(reply.tools)
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply, cut=cut)}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
        "choices": [choice],
        "usage": _chat_usage(reply, read),
    }


def _tool_deltas(number: int, at: int, name: str, arguments: str) -> Iterator[dict[str, Any]]:
    first = {"name": name, "arguments": ""}
    yield {"index": at, "id": _call(number, at), "type": "function", "function": first}
    for piece in pieces(arguments):
        yield {"index": at, "function": {"arguments": piece}}


def _call(number: int, at: int) -> str:
    return f"call_{number:04}{at:04}"


def _finish(reply: Reply, *, cut: bool) -> str:
    return "length" if cut else "tool_calls" if reply.tools else "stop"


def _written(reply: Reply) -> int:
    return len(pieces(reply.text)) + sum(len(pieces(name + arguments)) for name, arguments in reply.tools)


def _chat_usage(reply: Reply, read: tuple[int, int]) -> dict[str, Any]:
    return {
        "prompt_tokens": read[0],
        "completion_tokens": _written(reply),
        "total_tokens": read[0] + _written(reply),
        "prompt_tokens_details": {"cached_tokens": read[1], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


# --- Responses --------------------------------------------------------------------------------------------------------


def responses_events(
    model: str,
    number: int,
    reply: Reply,
    cut: bool,  # noqa: FBT001 - as above
    read: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed answer; the last one holds it whole."""
    count = itertools.count()
    output: list[dict[str, Any]] = []

    def event(kind: str, **members: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(count), **members}

    begun = _response(model, number, "in_progress", [], None)
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    if reply.text:
        for kind, members in _message(f"msg_{number}", reply.text):
            yield event(kind, output_index=0, **members)
            output = [members["item"]] if "item" in members else output
    for at, (name, arguments) in enumerate(reply.tools):
        index = len(output)
        item = {"id": f"fc_{number}_{at}", "type": "function_call", "call_id": _call(number, at), "name": name}
        where = {"item_id": item["id"], "output_index": index}
        begun_item = {**item, "arguments": "", "status": "in_progress"}
        yield event("response.output_item.added", output_index=index, item=begun_item)
        for piece in pieces(arguments):
            yield event("response.function_call_arguments.delta", **where, delta=piece)
        yield event("response.function_call_arguments.done", **where, name=name, arguments=arguments)
        output.append({**item, "arguments": arguments, "status": "completed"})
        yield event("response.output_item.done", output_index=index, item=output[-1])
    usage = {
        "input_tokens": read[0],
        "input_tokens_details": {"cached_tokens": read[1], "cache_write_tokens": 0},
        "output_tokens": _written(reply),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read[0] + _written(reply),
    }
    status = "incomplete" if cut else "completed"
    yield event(f"response.{status}", response=_response(model, number, status, output, usage))


def _message(item_id: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    item = {"id": item_id, "type": "message", "role": "assistant"}
    where = {"item_id": item_id, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": []}
    yield "response.output_item.added", {"item": {**item, "status": "in_progress", "content": []}}
    yield "response.content_part.added", {**where, "part": {**part, "text": ""}}
    for piece in pieces(text):
        yield "response.output_text.delta", {**where, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**where, "text": text, "logprobs": []}
    yield "response.content_part.done", {**where, "part": {**part, "text": text}}
    yield (
        "response.output_item.done",
        {"item": {**item, "status": "completed", "content": [{**part, "text": text}]}},
    )


def _response(
    model: str, number: int, status: str, output: Sequence[dict[str, Any]], usage: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": list(output),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }

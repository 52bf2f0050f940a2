"""Servers that speak OpenAI's protocol: where they are, whether they want a key, and where they differ. Data.

An agent file names one (``endpoint = "groq"``) and never an address, so it can send nobody's words anywhere else. An
operator moves one with ``<NAME>_BASE_URL``, or adds one of their own by setting that variable.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from trunkline.proto.ids import Stage
from trunkline.providers import keys
from trunkline.providers.errors import Misconfigured

_SECTIONS: Final[Mapping[Stage, str]] = {"stt": "stt", "brain": "llm", "tts": "tts"}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One server. The defaults describe one that nothing is known of."""

    base_url: str = ""
    """With the version's path. Empty: only the operator knows."""
    needs_key: bool = False
    """Without it, a key is sent where there is one."""
    asks_usage: bool = True
    """It takes ``stream_options``; one that does not tells the usage unasked."""
    short_call_ids: bool = False
    """A tool call's id is nine letters and digits."""


OPERATORS_OWN: Final = Endpoint()

ENDPOINTS: Final[Mapping[str, Endpoint]] = MappingProxyType(
    {
        "ollama": Endpoint(base_url="http://127.0.0.1:11434/v1"),
        "vllm": Endpoint(base_url="http://127.0.0.1:8000/v1"),
        "groq": Endpoint(base_url="https://api.groq.com/openai/v1", needs_key=True),
        "moonshot": Endpoint(base_url="https://api.moonshot.ai/v1", needs_key=True),
        "dashscope": Endpoint(base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1", needs_key=True),
        "together": Endpoint(base_url="https://api.together.xyz/v1", needs_key=True),
        "openrouter": Endpoint(base_url="https://openrouter.ai/api/v1", needs_key=True),
        "mistral": Endpoint(
            base_url="https://api.mistral.ai/v1", needs_key=True, asks_usage=False, short_call_ids=True
        ),
        "deepseek": Endpoint(base_url="https://api.deepseek.com/v1", needs_key=True),
    }
)
"""Those with an address of their own. ``moonshot`` serves Kimi, ``dashscope`` Qwen."""


def endpoint_of(name: str) -> Endpoint:
    """Return what is known of the endpoint `name`."""
    return ENDPOINTS.get(name, OPERATORS_OWN)


def account_of(name: str, environ: Mapping[str, str], stage: Stage) -> tuple[str, str]:
    """Return the address of the endpoint `name`, and the key for it or ``""``.

    Args:
        name: as the agent file has it.
        environ: where addresses and keys are set.
        stage: whose agent section is named in errors.

    Raises:
        Misconfigured: no name, no address, an unusable one, or no key where one is needed.
    """
    if not name:
        raise Misconfigured(f"{_SECTIONS[stage]}.endpoint", "needed: which of the compatible servers")
    endpoint, variable = endpoint_of(name), keys.variable_of(name, "BASE_URL")
    if not endpoint.base_url and not environ.get(variable, "").strip():
        raise Misconfigured(variable, f"not set: the endpoint {name} is nowhere")
    try:
        address = keys.address_of(name, environ, endpoint.base_url)
    except keys.BadAddress as error:
        raise Misconfigured(variable, str(error)) from error
    try:
        return address, keys.key_of(name, environ)
    except keys.MissingKey as error:
        if endpoint.needs_key:
            raise Misconfigured(error.variable, str(error)) from error
        return address, ""

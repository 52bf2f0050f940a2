"""Compatible servers: which are known, and what an operator has to say of others."""

import pytest

from trunkline.providers.endpoints import ENDPOINTS, OPERATORS_OWN, account_of, endpoint_of
from trunkline.providers.errors import Misconfigured

pytestmark = pytest.mark.unit


def refused(name, environ, stage="brain"):
    with pytest.raises(Misconfigured) as caught:
        account_of(name, environ, stage)
    return caught.value.setting


def test_a_known_server_needs_no_more_than_its_key():
    assert account_of("groq", {"GROQ_API_KEY": "k"}, "brain") == ("https://api.groq.com/openai/v1", "k")
    assert refused("groq", {}) == "GROQ_API_KEY"


def test_a_server_of_the_house_needs_no_key_and_is_sent_one_that_is_set():
    address = "http://127.0.0.1:11434/v1"
    assert account_of("ollama", {}, "brain") == (address, "")
    assert account_of("ollama", {"OLLAMA_API_KEY": "k"}, "brain") == (address, "k")


def test_the_key_of_one_server_is_no_key_for_another():
    assert account_of("vllm", {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}, "brain")[1] == ""
    assert refused("together", {"OPENAI_API_KEY": "k"}) == "TOGETHER_API_KEY"


def test_an_operator_moves_a_server_and_adds_others():
    assert account_of("vllm", {"VLLM_BASE_URL": "http://gpu:8000/v1/"}, "brain") == ("http://gpu:8000/v1", "")
    assert account_of("my-gpu", {"MY_GPU_BASE_URL": "http://gpu/v1"}, "tts") == ("http://gpu/v1", "")
    assert endpoint_of("my-gpu") is OPERATORS_OWN


@pytest.mark.parametrize(("stage", "setting"), [("stt", "stt"), ("brain", "llm"), ("tts", "tts")])
def test_an_agent_that_names_no_server_is_told_where_to(stage, setting):
    assert refused("", {}, stage) == f"{setting}.endpoint"


def test_a_server_without_an_address_is_nowhere():
    assert refused("my-gpu", {}) == "MY_GPU_BASE_URL"
    assert refused("vllm", {"VLLM_BASE_URL": "gpu:8000"}) == "VLLM_BASE_URL"


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_address_in_the_table_can_be_used(name):
    endpoint = ENDPOINTS[name]
    address, _ = account_of(name, {f"{name.upper()}_API_KEY": "k"}, "brain")
    assert address == endpoint.base_url
    assert address.startswith("https://") or not endpoint.needs_key

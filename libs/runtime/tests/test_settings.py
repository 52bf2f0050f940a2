import logging
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from trunkline.runtime.logs import JsonLines, TextLines
from trunkline.runtime.settings import Secret, SettingsError, load, unknown

pytestmark = pytest.mark.unit


class Example(msgspec.Struct, frozen=True, kw_only=True):
    capacity: Annotated[int, Meta(ge=1, le=500)] = 200
    codec: Literal["pcm16", "mulaw"] = "pcm16"
    reload: bool = False
    token: Secret | None = None
    pin: Annotated[int, Meta(extra={"secret": True})] = 0


def read(**variables: str) -> Example:
    return load(Example, "TRUNKLINE_X_", {f"TRUNKLINE_X_{k.upper()}": v for k, v in variables.items()})


def test_what_is_not_set_has_its_default():
    assert read() == Example()


def test_text_becomes_what_the_field_is():
    assert read(capacity="7", codec="mulaw", reload="true", token="abc") == Example(
        capacity=7, codec="mulaw", reload=True, token="abc"
    )


def test_a_variable_set_to_nothing_counts_as_unset():
    assert read(capacity="") == Example()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("capacity", "many", "a whole number, at least 1, at most 500"),
        ("capacity", "0", "a whole number, at least 1, at most 500"),
        ("codec", "opus", "one of pcm16, mulaw"),
        ("reload", "perhaps", "true or false"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(field, value, allowed):
    with pytest.raises(SettingsError) as caught:
        read(**{field: value})
    assert str(caught.value) == f"TRUNKLINE_X_{field.upper()}={value!r} is wrong; expected {allowed}"


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(SettingsError) as caught:
        read(capacity="many", codec="opus")
    assert len(str(caught.value).splitlines()) == 2


def test_the_value_of_a_secret_is_never_shown():
    with pytest.raises(SettingsError) as caught:
        read(pin="hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_required_field_says_that_it_is_not_set():
    class Strict(msgspec.Struct):
        url: str

    with pytest.raises(SettingsError, match="TRUNKLINE_X_URL is not set; expected text"):
        load(Strict, "TRUNKLINE_X_", {})


def test_a_misspelt_variable_is_noticed():
    environ = {"TRUNKLINE_X_CAPACTY": "7", "OTHER": "1", "TRUNKLINE_X_CODEC": "pcm16"}
    assert unknown([Example], "TRUNKLINE_X_", environ) == [
        "TRUNKLINE_X_CAPACTY is no setting; did you mean TRUNKLINE_X_CAPACITY?"
    ]


def record() -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": "caller spoke", "levelname": "INFO", "name": "trunkline.brain", "created": 0})
    made.__dict__.update({"call": "abc", "pii.text": "my card number"})
    return made


def test_a_json_line_has_the_fields_but_nothing_private():
    line = msgspec.json.decode(JsonLines("brain", show_pii=False).format(record()))
    assert line["message"] == "caller spoke"
    assert line["call"] == "abc"
    assert "my card number" not in str(line)


def test_private_fields_are_shown_when_asked_for():
    assert "my card number" in TextLines(colour=False, show_pii=True).format(record())
    assert "my card number" not in TextLines(colour=False, show_pii=False).format(record())

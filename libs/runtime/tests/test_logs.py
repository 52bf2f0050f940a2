import io
import logging
import sys
from collections.abc import Callable

import msgspec
import pytest

from trunkline.runtime.logs import JsonLines, TextLines, configure

pytestmark = pytest.mark.unit

NUMBER = "+4915112345678"


def told(problem: Callable[[], object], *, show_pii: bool = False) -> str:
    try:
        problem()
    except Exception:  # noqa: BLE001 - of whatever kind
        record = logging.LogRecord("trunkline.brain", logging.ERROR, __file__, 1, "broke", None, sys.exc_info())
    line = str(msgspec.json.decode(JsonLines("brain", show_pii).format(record))["exception"])
    assert TextLines(colour=False, show_pii=show_pii).format(record).endswith(line)
    return line


def alone() -> None:
    error = RuntimeError(NUMBER)
    error.add_note(NUMBER)
    raise error


def caused() -> None:
    try:
        alone()
    except RuntimeError as error:
        raise LookupError(NUMBER) from error


def meanwhile() -> None:
    try:
        caused()
    except LookupError:
        int(NUMBER + "x")


def suppressed() -> None:
    try:
        alone()
    except RuntimeError:
        raise msgspec.DecodeError(NUMBER) from None


def together() -> None:
    errors: list[Exception] = []
    for problem in (caused, suppressed):
        try:
            problem()
        except (LookupError, msgspec.DecodeError) as error:
            errors.append(error)
    raise ExceptionGroup(NUMBER, errors)


def in_a_circle() -> None:
    first, second = RuntimeError(NUMBER), LookupError(NUMBER)
    first.__cause__, second.__cause__ = second, first
    raise first


@pytest.mark.parametrize(
    ("problem", "types"),
    [
        (alone, ["RuntimeError"]),
        (caused, ["RuntimeError", "LookupError"]),
        (meanwhile, ["RuntimeError", "LookupError", "ValueError"]),
        (suppressed, ["msgspec.DecodeError"]),
        (together, ["ExceptionGroup", "  RuntimeError", "  LookupError", "  msgspec.DecodeError"]),
        (in_a_circle, ["LookupError", "RuntimeError"]),
    ],
)
def test_an_exception_is_told_by_its_frames_and_types_and_says_nothing(problem, types):
    line = told(problem)
    assert NUMBER not in line
    assert f"in {problem.__name__}" in line
    assert [text for text in line.splitlines() if text.strip() in {name.strip() for name in types}] == types


def test_an_exception_is_told_in_full_where_private_things_are_shown():
    assert f"RuntimeError: {NUMBER}" in told(caused, show_pii=True)
    assert f"LookupError: {NUMBER}" in told(caused, show_pii=True)


def test_a_record_of_no_exception_at_all_is_no_problem():
    record = logging.LogRecord("trunkline.brain", logging.ERROR, __file__, 1, "broke", None, (None, None, None))
    assert TextLines(colour=False, show_pii=False).format(record).strip().endswith("broke")


def test_a_library_that_sets_its_own_level_is_kept_down_all_the_same():
    root, library = logging.getLogger(), logging.getLogger("openai._base_client")
    before = root.handlers[:], root.level
    out = io.StringIO()
    try:
        configure("brain", "debug", "json", stream=out)
        library.setLevel(logging.DEBUG)  # as its environment variable has it do
        library.debug("Request options: what the caller said")
        library.warning("told")
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
        library.setLevel(logging.NOTSET)
    assert [msgspec.json.decode(line)["message"] for line in out.getvalue().splitlines()] == ["told"]

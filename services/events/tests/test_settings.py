"""What the settings refuse, and what they never show."""

import pytest

from trunkline.events.settings import EventsSettings, file_of, receiver_of
from trunkline.runtime.settings import SettingsError, load

pytestmark = pytest.mark.unit

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def settings(**values: str) -> EventsSettings:
    environ = {f"TRUNKLINE_EVENTS_{name.upper()}": value for name, value in values.items()}
    return load(EventsSettings, "TRUNKLINE_EVENTS_", environ)


def test_nothing_set_means_no_sink():
    assert receiver_of(settings()) is None
    assert file_of(settings()) is None


def test_user_and_password_leave_the_url_and_are_not_shown():
    receiver = receiver_of(
        settings(webhook_url="https://me:s%40cret@example.org:8443/hook?token=t", webhook_secret=SECRET)
    )
    assert receiver is not None
    assert receiver.url == "https://example.org:8443/hook?token=t"
    assert receiver.shown == "https://example.org:8443"
    assert receiver.login == ("me", "s@cret")
    assert receiver.key is not None


def test_an_address_in_brackets_stays_in_brackets():
    receiver = receiver_of(settings(webhook_url="http://[::1]:9000/x"))
    assert receiver is not None
    assert receiver.url == "http://[::1]:9000/x"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h.example/x", "example.org/hook", "http://", "https://:443/", "http://h:99999/", "http://h:x/",
        "http://h/a b", "http://h/\r\nX: y", "file:///etc/passwd", "http://[::1", "javascript:alert(1)", "http://h:0/",
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_with_the_name_of_the_variable(url):
    with pytest.raises(SettingsError, match="TRUNKLINE_EVENTS_WEBHOOK_URL"):
        receiver_of(settings(webhook_url=url))


def test_a_refusal_shows_neither_password_nor_secret():
    with pytest.raises(SettingsError) as refusal:
        receiver_of(settings(webhook_url="ftp://me:hunter2@h/x"))
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(SettingsError, match="TRUNKLINE_EVENTS_WEBHOOK_SECRET") as refusal:
        receiver_of(settings(webhook_url="http://h/x", webhook_secret="hunter2hunter2"))
    assert "hunter2" not in str(refusal.value)


def test_a_secret_without_a_receiver_is_a_mistake():
    with pytest.raises(SettingsError, match="without TRUNKLINE_EVENTS_WEBHOOK_URL"):
        receiver_of(settings(webhook_secret=SECRET))


def test_the_folder_of_the_file_is_made(tmp_path):
    assert file_of(settings(file=str(tmp_path / "a" / "b" / "events.jsonl"))) == tmp_path / "a" / "b" / "events.jsonl"


@pytest.mark.parametrize("name", ["", "events.jsonl/below"])
def test_a_file_that_cannot_be_one_is_refused_with_the_name_of_the_variable(tmp_path, name):
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(SettingsError, match="TRUNKLINE_EVENTS_FILE"):
        file_of(settings(file=str(tmp_path / name)))


def test_a_device_is_no_file():
    with pytest.raises(SettingsError, match="no regular file"):
        file_of(settings(file="/dev/null"))

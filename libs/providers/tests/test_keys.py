"""Keys: where they are looked for, and that nobody else gets to see them."""

import pytest

from trunkline.providers.keys import BadAddress, MissingKey, address_of, key_of, socket_address, without_key

pytestmark = pytest.mark.unit


def test_a_key_is_taken_from_the_environment_else_its_file_else_the_folder_of_secrets(tmp_path):
    (tmp_path / "ACME_API_KEY").write_text("from-folder\n")
    (tmp_path / "elsewhere").write_text("from-file\n")
    folder = {"TRUNKLINE_SECRETS": str(tmp_path)}
    file = folder | {"ACME_API_KEY_FILE": str(tmp_path / "elsewhere")}
    assert key_of("acme", folder) == "from-folder"
    assert key_of("acme", file) == "from-file"
    assert key_of("acme", file | {"ACME_API_KEY": " from-environment "}) == "from-environment"


def test_a_key_that_is_nowhere_is_missed_by_the_name_of_its_settings(tmp_path):
    with pytest.raises(MissingKey, match=r"MY_ACME_API_KEY .* MY_ACME_API_KEY_FILE"):
        key_of("my-acme", {"TRUNKLINE_SECRETS": str(tmp_path)})


@pytest.mark.parametrize("key", ["two\nlines", "a\x00b", "sch\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel"])
def test_what_no_header_can_hold_is_no_key(key):
    with pytest.raises(MissingKey):
        key_of("acme", {"ACME_API_KEY": key})


def test_an_address_is_the_operators_or_the_adapters_own():
    assert address_of("acme", {}, "https://api.acme.test") == "https://api.acme.test"
    assert (
        address_of("acme", {"ACME_BASE_URL": "http://127.0.0.1:9/v1/"}, "https://api.acme.test")
        == "http://127.0.0.1:9/v1"
    )
    assert socket_address("https://api.acme.test") == "wss://api.acme.test"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "api.acme.test", "https://", "https://a/?key=1", "https://[::1"])
def test_an_address_that_is_none_is_refused_by_its_setting(url):
    with pytest.raises(BadAddress, match="ACME_BASE_URL"):
        address_of("acme", {"ACME_BASE_URL": url}, "https://api.acme.test")


def test_a_quoted_key_is_blotted_out():
    assert without_key("bad key sk-123", "sk-123") == "bad key ***"
    assert without_key("nothing", "") == "nothing"

"""Who is let in: signatures, loopback, and the settings that go together."""

import base64
import hashlib
import hmac

import pytest
from starlette.datastructures import FormData

from trunkline.edge.gate import Gate, Visitor
from trunkline.edge.settings import EdgeSettings, read
from trunkline.edge.signature import PublicUrl, Signatures
from trunkline.runtime.settings import SettingsError, load

pytestmark = pytest.mark.unit

# The example of https://www.twilio.com/docs/usage/security
TOKEN = "12345"
EXAMPLE = FormData(
    [
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+12349013030"),
        ("Digits", "1234"),
        ("From", "+12349013030"),
        ("To", "+18005551212"),
    ]
)
EXAMPLE_SIGNATURE = "0/KCTR6DLpKmkAf8muzZqo1nDgQ="


def sign(text, token=TOKEN, method=hashlib.sha1):
    return base64.b64encode(hmac.new(token.encode(), text.encode(), method).digest()).decode()


def visitor(path, query="", host="203.0.113.9", **headers):
    return Visitor(host, path, query, {name.replace("_", "-"): value for name, value in headers.items()})


def gate(url="https://mycompany.com"):
    return Gate(Signatures(TOKEN, PublicUrl(url)))


class TestASignedWebhook:
    def test_of_twilios_own_example_is_let_in(self):
        asked = visitor("/myapp.php", "foo=1&bar=2", x_twilio_signature=EXAMPLE_SIGNATURE)
        assert gate().webhook(asked, EXAMPLE) is None

    @pytest.mark.parametrize("signature", ["", "x", EXAMPLE_SIGNATURE[:-2] + "A="])
    def test_with_another_signature_is_not(self, signature):
        asked = visitor("/myapp.php", "foo=1&bar=2", x_twilio_signature=signature)
        assert "TRUNKLINE_EDGE_PUBLIC_URL" in gate().webhook(asked, EXAMPLE)

    def test_without_a_signature_is_not_even_from_this_machine(self):
        assert gate().webhook(visitor("/myapp.php", "foo=1&bar=2", host="127.0.0.1"), EXAMPLE)

    def test_whose_query_was_changed_is_not(self):
        asked = visitor("/myapp.php", "foo=1&bar=3", x_twilio_signature=EXAMPLE_SIGNATURE)
        assert gate().webhook(asked, EXAMPLE)

    def test_is_judged_by_the_public_url_and_never_by_the_host_header(self):
        headers = {"x_twilio_signature": EXAMPLE_SIGNATURE, "host": "mycompany.com"}
        assert gate("https://other.com").webhook(visitor("/myapp.php", "foo=1&bar=2", **headers), EXAMPLE)

    def test_counts_empty_and_repeated_fields(self):
        form = FormData([("A", ""), ("B", "2"), ("B", "1")])
        asked = visitor("/h", x_twilio_signature=sign("https://mycompany.com/hAB1B2"))
        assert gate().webhook(asked, form) is None

    def test_may_be_signed_with_sha256_where_its_header_says_so(self):
        signature = sign("https://mycompany.com/h", method=hashlib.sha256)
        settings = "key=k,algorithm=HMAC_SHA256"
        headers = {"x_twilio_signature": signature, "x_twilio_webhooks_signature_settings": settings}
        assert gate().webhook(visitor("/h", **headers), FormData()) is None
        assert gate().webhook(visitor("/h", x_twilio_signature=signature), FormData())


class TestASignedSocket:
    @pytest.mark.parametrize("slash", ["", "/"])
    def test_is_verified_over_its_wss_url_with_and_without_a_slash(self, slash):
        signature = sign(f"wss://mycompany.com/twilio/media-stream{slash}")
        assert gate().socket(visitor("/twilio/media-stream", x_twilio_signature=signature)) is None

    def test_signed_over_https_is_refused(self):
        signature = sign("https://mycompany.com/twilio/media-stream")
        assert gate().socket(visitor("/twilio/media-stream", x_twilio_signature=signature))

    def test_of_a_public_url_with_a_path_is_verified_with_that_path(self):
        signature = sign("wss://mycompany.com/voice/twilio/media-stream")
        asked = visitor("/twilio/media-stream", x_twilio_signature=signature)
        assert gate("https://mycompany.com/voice/").socket(asked) is None


class TestWithoutASecret:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
    def test_this_machine_is_served(self, host):
        assert Gate(None).socket(visitor("/", host=host)) is None
        assert Gate(None).webhook(visitor("/", host=host), FormData()) is None

    @pytest.mark.parametrize("host", ["10.0.0.1", "203.0.113.9", "", "testclient"])
    def test_others_are_told_which_variable_is_missing(self, host):
        assert "TRUNKLINE_TWILIO_AUTH_TOKEN" in Gate(None).socket(visitor("/", host=host))

    @pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded"])
    def test_what_a_tunnel_on_this_machine_forwards_is_not_of_this_machine(self, header):
        assert Gate(None).socket(visitor("/", host="127.0.0.1", **{header: "203.0.113.9"}))


class TestPublicUrl:
    def test_makes_ws_of_http_and_wss_of_https(self):
        assert PublicUrl("http://127.0.0.1:8080").socket("/s") == "ws://127.0.0.1:8080/s"
        assert PublicUrl("https://a.b/").socket("/s", "x=1") == "wss://a.b/s?x=1"

    @pytest.mark.parametrize("url", ["", "a.b", "wss://a.b", "https://", "https://a.b?x=1"])
    def test_must_be_an_origin(self, url):
        with pytest.raises(ValueError, match="no http"):
            PublicUrl(url)


class TestSettings:
    def read(self, **environ):
        environ = {f"TRUNKLINE_{name}": value for name, value in environ.items()}
        return read(load(EdgeSettings, "TRUNKLINE_EDGE_", environ), environ)

    def test_default_to_loopback_and_the_url_of_the_listener(self):
        setup = self.read()
        assert str(setup.public_url(8123)) == "http://127.0.0.1:8123"
        assert setup.agents.name == "agents"

    def test_refuse_an_open_host_without_a_secret_and_name_both_variables(self):
        with pytest.raises(SettingsError, match=r"TRUNKLINE_EDGE_HOST.*TRUNKLINE_TWILIO_AUTH_TOKEN"):
            self.read(EDGE_HOST="0.0.0.0")

    def test_refuse_an_open_host_whose_public_url_is_unknown(self):
        with pytest.raises(SettingsError, match="TRUNKLINE_EDGE_PUBLIC_URL"):
            self.read(EDGE_HOST="0.0.0.0", TWILIO_AUTH_TOKEN="t")

    def test_take_a_secret_on_loopback_without_a_public_url(self):
        assert self.read(TWILIO_AUTH_TOKEN="t").twilio.auth_token == "t"

    def test_read_the_number_to_call_from(self):
        assert self.read(TWILIO_FROM="+15551230000").twilio_from == "+15551230000"
        with pytest.raises(SettingsError, match="TRUNKLINE_TWILIO_FROM"):
            self.read(TWILIO_FROM="5551230000")

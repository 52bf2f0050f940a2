"""Standard Webhooks signatures, checked against the vector its reference libraries are tested with."""

import base64

import pytest

from trunkline.events.signature import headers, key_of

pytestmark = pytest.mark.unit

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_reference_vector_is_reproduced():
    signed = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key_of(SECRET))
    assert signed == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_key_nothing_is_signed():
    assert set(headers("e1", 1, b"{}", None)) == {"webhook-id", "webhook-timestamp"}


def test_a_secret_may_carry_its_version():
    assert key_of(f"v1,{SECRET}") == key_of(SECRET) == key_of(SECRET.removeprefix("whsec_"))


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_c2hvcnQ=", "not base64!", "whsec_" + base64.b64encode(b"x" * 65).decode()]
)
def test_a_wrong_secret_is_refused_without_showing_it(secret):
    with pytest.raises(ValueError, match=r"no base64|bytes long") as refusal:
        key_of(secret)
    assert secret.removeprefix("whsec_") not in str(refusal.value) or secret == "whsec_"

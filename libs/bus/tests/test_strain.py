"""How long a process that had too much to do takes nothing more on."""

import pytest

from trunkline.bus.strain import EASED_S, Strain

pytestmark = pytest.mark.unit


def test_a_reason_stands_until_it_has_been_quiet_for_a_while():
    reasons = iter([None, "loop 300 ms late", None, "providers refuse", None, None])
    strain = Strain(lambda: next(reasons))
    assert strain.look(1.0) is None
    assert strain.look(1.2) == "loop 300 ms late"
    assert strain.look(1.9) == "loop 300 ms late"
    assert strain.look(2.0) == "providers refuse"
    assert strain.look(2.9) == "providers refuse"
    assert strain.look(2.0 + EASED_S) is None

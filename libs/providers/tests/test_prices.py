"""What a call costs, by a table with a date."""

import pytest

from trunkline.proto.agent import Llm, Stt
from trunkline.proto.ids import Epoch
from trunkline.providers.prices import BadPrices, Price, Prices, Quantities, load
from trunkline.providers.usage import Meter

pytestmark = pytest.mark.unit

TABLE = Prices(
    as_of="2025-01-01",
    price=(
        Price(provider="acme", model="ear", audio_minute=0.006),
        Price(provider="acme", model="mind", million_input=2.0, million_cached=0.5, million_output=8.0),
        Price(provider="acme", model="mind-mini", million_input=0.2, million_output=0.8),
        Price(provider="local", model=""),
    ),
)


def test_a_cost_is_what_one_reckons_by_hand():
    mind = TABLE.find("brain", "acme", "mind-2")
    # 900 fresh tokens at 2 $, 100 cached at 0.5 $, 50 out at 8 $ a million
    used = Quantities(input_tokens=1_000, cached_tokens=100, output_tokens=50)
    assert mind.of(used) == pytest.approx(900 * 2e-6 + 100 * 0.5e-6 + 50 * 8e-6)
    assert TABLE.find("stt", "acme", "ear").of(Quantities(audio_s=90.0)) == pytest.approx(0.009)


def test_the_longest_name_that_fits_counts_and_what_is_not_known_is_not_free():
    assert TABLE.find("brain", "acme", "mind-mini-2026").million_input == 0.2
    assert TABLE.find("tts", "acme", "voice") is None
    assert TABLE.find("brain", "other", "mind") is None


def test_cached_tokens_cost_as_others_where_the_table_names_no_price_for_them():
    mini = TABLE.find("brain", "acme", "mind-mini")
    assert mini.of(Quantities(input_tokens=100, cached_tokens=100)) == pytest.approx(100 * 0.2e-6)


def test_a_meter_tells_totals_that_changed_and_only_those():
    spent = []
    meter = Meter("brain", Epoch(3), TABLE, lambda provider, usd: spent.append((provider, usd)))
    acme, unknown = Llm(provider="acme", model="mind"), Llm(provider="acme", model="new")
    meter.add(acme, Quantities(input_tokens=10, output_tokens=1))
    meter.add(acme, Quantities(input_tokens=20, output_tokens=2))
    (used,) = meter.used()
    assert (used.input_tokens, used.output_tokens, used.epoch) == (30, 3, 3)
    assert used.usd == pytest.approx(30 * 2e-6 + 3 * 8e-6) == pytest.approx(sum(usd for _, usd in spent))
    assert meter.used() == []
    meter.add(unknown, Quantities(input_tokens=1), estimated=True)
    (used,) = meter.used()
    assert (used.priced, used.usd, used.estimated) == (False, 0.0, True)


def test_the_model_an_adapter_chose_is_the_one_that_is_priced():
    meter = Meter("stt", Epoch(1), TABLE)
    meter.add(Stt(provider="acme"), Quantities(audio_s=60.0), model="ear-3")
    assert meter.used()[0].usd == pytest.approx(0.006)


def test_our_table_can_be_read_and_is_dated():
    table = load({})
    assert len(table.as_of) == 10
    assert table.find("stt", "local", "").of(Quantities(audio_s=100.0, characters=10)) == 0.0
    assert len({(entry.provider, entry.model) for entry in table.price}) == len(table.price)


@pytest.mark.parametrize(
    "text", ["as_of = 3", "[[price]]\nprovider = 'x'", "nonsense", "as_of='x'\n[[price]]\nprovder='x'"]
)
def test_a_table_that_is_wrong_is_refused_and_the_setting_named(tmp_path, text):
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(BadPrices, match="TRUNKLINE_PRICES"):
        load({"TRUNKLINE_PRICES": str(tmp_path / "prices.toml")})


def test_a_voice_named_like_a_mind_is_not_priced_as_one():
    assert TABLE.find("tts", "acme", "mind-tts") is None
    assert TABLE.find("tts", "local", "") is not None

import csv
import gzip

import msgspec
import pytest

from trunkline.chaos.__main__ import PAGE, main
from trunkline.chaos.evidence import Fault, Sample
from trunkline.chaos.figures import Slope
from trunkline.chaos.files import gather, keep
from trunkline.chaos.receiver import Posted
from trunkline.chaos.report import BEGIN, END, failures_page, one_line
from trunkline.chaos.rig import Folders
from trunkline.chaos.rows import ROWS
from trunkline.chaos.run import Settings, judged, write
from trunkline.chaos.who import noted

from .fabricated import but, caller, caller_but, effect, events, good, notes

pytestmark = pytest.mark.unit

SETTINGS = Settings(row="tts-kill", repeats=1, calls=1, seed=7)
FAULT = Fault(t=caller().words[20].at_s, kind="tts-kill", service="tts", worker="tts-1")
GOOD = but(good(), faults=(FAULT,))


def result_of(evidence):
    return judged(ROWS["tts-kill"], SETTINGS, evidence, 60.0)


def lines(items):
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def test_what_a_run_left_is_read_back(tmp_path):
    folders = Folders(tmp_path)
    folders.journals.mkdir()
    torn = lines(notes()) + b'{"t":9'
    (folders.journals / "edge-77.jsonl").write_bytes(torn)
    folders.next_callers().write_bytes(lines([caller()]))
    folders.effects.write_bytes(lines([effect()]))
    (tmp_path / "events.jsonl").write_bytes(lines(events()))
    evidence = gather(folders, tmp_path / "events.jsonl", [FAULT], None)
    assert len(evidence.notes) == len(notes())
    assert (evidence.callers, evidence.effects, evidence.events) == ((caller(),), (effect(),), events())


def test_processes_that_sign_alike_are_told_apart(tmp_path):
    folders = Folders(tmp_path)
    folders.journals.mkdir()
    for pid in (77, 78):
        (folders.journals / f"edge-{pid}.jsonl").write_bytes(lines([but(notes()[0], who="edge")]))
    evidence = gather(folders, tmp_path / "none", [], None)
    assert {note.who for note in evidence.notes} == {"edge-77", "edge-78"}


def test_a_process_is_known_by_its_journal(tmp_path):
    (tmp_path / "stt-77.jsonl").write_bytes(lines([but(notes()[0], who="stt"), but(notes()[0], who="stt-abcdefgh")]))
    assert noted(tmp_path, 77) == "stt-abcdefgh"
    assert noted(tmp_path, 78) == ""


def test_a_clean_run_with_a_fault_keeps_its_promise_and_one_without_proves_nothing():
    assert result_of(GOOD).kept
    assert not result_of(good()).kept
    assert not result_of(caller_but(GOOD, words=caller().words[:-2])).kept


def test_a_slow_recovery_breaks_the_promise_though_no_word_is_lost():
    late = tuple(
        word._replace(at_s=word.at_s + 0.9, end_s=word.end_s + 0.9) if word.at_s > FAULT.t else word
        for word in caller().words
    )
    result = result_of(caller_but(GOOD, words=late, ended_t=caller().ended_t + 1))
    assert result.findings.clean
    assert not result.kept


def test_results_are_written_and_come_back_in_the_table(tmp_path):
    broken = caller_but(GOOD, words=caller().words[:-2])
    write(result_of(broken), broken, tmp_path)
    assert (tmp_path / "tts-kill.csv").read_text().count("\n") == 2
    with gzip.open(tmp_path / "tts-kill.evidence.jsonl.gz") as file:
        assert b'"kind":"note"' in file.read()
    page = failures_page(f"before\n{BEGIN}\nold\n{END}\nafter\n", tmp_path)
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert f"| {ROWS['tts-kill'].title} |" in page
    assert page.count("not run") == len(ROWS) - 2  # all but this one and `quick`, which is not in the table
    write(result_of(GOOD), GOOD, tmp_path)
    assert not (tmp_path / "tts-kill.evidence.jsonl.gz").exists()
    assert "kept" in one_line(result_of(GOOD))


def test_kills_that_happened_in_the_soak_stand_in_their_own_rows(tmp_path):
    soak = judged(ROWS["random"], but(SETTINGS, row="random"), GOOD, 1_800.0)
    slope = Slope(per_hour=1.25, low=-0.5, high=3.0, n=9)
    receipt = Posted(facts=9, lost=0, repeated=1, out_of_order=0, away_s=[300.0], waiting=[4_000], caught_up_s=[28.7])
    write(but(soak, slopes={"edge rss_mib": slope}, posted=receipt), GOOD, tmp_path)
    page = failures_page(f"{BEGIN}\n{END}\n", tmp_path)
    (kill,) = [line for line in page.splitlines() if line.startswith(f"| {ROWS['tts-kill'].title} |")]
    assert "| 1 | 1 |" in kill
    assert kill.endswith("| see soak | see soak |")
    assert "| edge rss_mib | +1.2 | -0.5 to +3.0 | 9 |" in page
    assert "back with 4000 facts waiting, and had them all after 28.7 s" in page


def test_what_grew_is_fitted_where_it_has_settled_and_every_reading_is_kept(tmp_path):
    warming = [100.0, 140.0, 150.0, 155.0, 155.0, 155.0, 155.0, 155.0]
    samples = tuple(
        Sample(t=15.0 * n, pid=7, service="edge", reading="rss_mib", value=value) for n, value in enumerate(warming)
    )
    late = Sample(t=0.0, pid=8, service="edge", reading="rss_mib", value=900.0)
    run = but(GOOD, samples=(late, *samples))
    result = result_of(run)
    assert result.slopes["edge rss_mib"] == Slope(per_hour=0.0, low=0.0, high=0.0, n=4)
    write(result, run, tmp_path)
    with gzip.open(tmp_path / "tts-kill.samples.csv.gz", "rt") as file:
        assert [row["value"] for row in csv.DictReader(file)] == ["900.0", *map(str, warming)]


def test_where_the_raw_data_lay_is_not_written_down(tmp_path):
    result = judged(ROWS["tts-kill"], but(SETTINGS, folder=tmp_path / "secret"), GOOD, 60.0)
    write(result, GOOD, tmp_path)
    assert b"secret" not in (tmp_path / "tts-kill.json").read_bytes()


def test_only_the_calls_concerned_are_kept(tmp_path):
    keep(GOOD, ["another-call"], tmp_path / "kept.gz")
    with gzip.open(tmp_path / "kept.gz") as file:
        assert [msgspec.json.decode(line)["kind"] for line in file] == ["fault"]


def test_the_page_has_a_place_for_the_table():
    assert BEGIN in PAGE.read_text()
    with pytest.raises(ValueError, match="has no"):
        failures_page("nothing", PAGE.parent)


def test_an_unknown_row_is_refused(capsys):
    assert main(["run", "--row", "earthquake"]) == 2
    assert "earthquake" in capsys.readouterr().err

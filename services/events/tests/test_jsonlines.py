"""The file of events: whole lines, nothing twice, whatever happened to it meanwhile."""

import errno
import os
import resource
import signal

import pytest

from trunkline.bus import Recorded, read_envelope
from trunkline.events.jsonlines import JsonLinesFile

pytestmark = pytest.mark.integration  # it writes a real disk


def event(event_id: str, text: str = "hello") -> Recorded:
    fact = f'{{"type":"caller.spoke","text":"{text}"}}'
    return read_envelope(f'{{"id":"{event_id}","call":"c1","wall_at":1.0,"fact":{fact}}}'.encode())


def ids(found: list[Recorded]) -> list[str]:
    return [record.id for record in found]


def test_each_event_is_a_line_that_only_its_owner_may_read(tmp_path):
    file = JsonLinesFile(tmp_path / "events.jsonl")
    file.write([event("e1"), event("e2")])
    file.write([event("e3")])
    assert [read_envelope(line).id for line in file.path.read_bytes().splitlines()] == ["e1", "e2", "e3"]
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_new_writer_learns_what_the_last_one_wrote_and_an_old_one_learns_nothing(tmp_path):
    old = JsonLinesFile(tmp_path / "events.jsonl")
    assert old.catch_up() == []
    old.write([event("e1"), event("e2")])
    assert old.catch_up() == []
    new = JsonLinesFile(old.path)
    assert ids(new.catch_up()) == ["e1", "e2"]
    new.write([event("e3")])
    assert ids(old.catch_up()) == ["e1", "e2", "e3"]


def test_a_line_torn_by_a_crash_is_removed(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(event("e1").data + b"\n" + event("e2").data[:40])
    file = JsonLinesFile(path)
    assert ids(file.catch_up()) == ["e1"]
    file.write([event("e2")])
    assert [read_envelope(line).id for line in path.read_bytes().splitlines()] == ["e1", "e2"]


def test_a_whole_line_that_only_misses_its_end_of_line_is_kept(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(event("e1").data)
    file = JsonLinesFile(path)
    assert ids(file.catch_up()) == ["e1"]
    file.write([event("e2")])
    assert path.read_bytes() == event("e1").data + b"\n" + event("e2").data + b"\n"


def test_foreign_text_is_left_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"# my notes\nno line end")
    file = JsonLinesFile(path)
    assert file.catch_up() == []
    file.write([event("e1")])
    assert path.read_bytes() == b"# my notes\nno line end\n" + event("e1").data + b"\n"


def test_a_rotated_file_is_begun_anew(tmp_path):
    file = JsonLinesFile(tmp_path / "events.jsonl")
    file.write([event("e1")])
    file.path.rename(tmp_path / "events.1")
    assert file.catch_up() == []
    file.write([event("e2")])
    assert file.path.read_bytes() == event("e2").data + b"\n"


def test_an_event_with_line_breaks_between_its_fields_still_takes_one_line(tmp_path):
    file = JsonLinesFile(tmp_path / "events.jsonl")
    file.write([read_envelope(b'{"id":"e1",\n "call":"c1",\n "wall_at":1,\n "fact":{"type":"x"}}')])
    assert len(file.path.read_bytes().splitlines()) == 1


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """A limit on the size of files stands in for the disk: the kernel writes what fits, then refuses."""
    file = JsonLinesFile(tmp_path / "events.jsonl")
    file.write([event("e1")])
    before = file.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            file.write([event("e2", "x" * 200)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.path.read_bytes() == before
    assert file.catch_up() == []
    file.write([event("e2")])
    assert len(file.path.read_bytes().splitlines()) == 2

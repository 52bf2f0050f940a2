import json
import os
import socket
from pathlib import Path

import pytest

from trunkline.devserver import ports, whereabouts
from trunkline.devserver.child import ending
from trunkline.devserver.errors import BadOption, PortTaken
from trunkline.devserver.journal import tagged
from trunkline.devserver.post import LONGEST_DELAY_S, delay_before
from trunkline.devserver.probe import reason_in
from trunkline.devserver.reload import Concerned, Watched, concerned
from trunkline.devserver.services import parse_workers
from trunkline.devserver.settings import plan_of, wants_colour

pytestmark = pytest.mark.unit


class TestRestartDelays:
    def test_a_long_life_is_followed_at_once(self):
        assert delay_before(0) == 0.0

    def test_short_lives_are_followed_later_and_later_but_not_for_ever(self):
        assert [delay_before(n) for n in (1, 2, 3)] == [0.25, 0.5, 1.0]
        assert delay_before(50) == LONGEST_DELAY_S


class TestWorkers:
    def test_counts_are_read_by_service(self):
        assert parse_workers("stt=2, tts=3") == {"stt": 2, "tts": 3}

    def test_nothing_means_one_each(self):
        assert parse_workers("") == {}

    @pytest.mark.parametrize("words", ["edge=2", "events=2", "nobody=1", "stt=0", "stt=many", "stt", "stt=33"])
    def test_what_cannot_be_is_refused_with_what_can(self, words):
        with pytest.raises(ValueError, match="stt"):
            parse_workers(words)


class TestPlans:
    def test_the_port_is_free_to_move_unless_somebody_named_it(self):
        default, by_variable = plan_of([], {}), plan_of([], {"TRUNKLINE_EDGE_PORT": "9000"})
        by_option = plan_of(["--port", "9001"], {"TRUNKLINE_EDGE_PORT": "9000"})
        assert (default.port, default.port_is_fixed) == (8080, False)
        assert (by_variable.port, by_variable.port_is_fixed) == (9000, True)
        assert (by_option.port, by_option.port_is_fixed) == (9001, True)

    def test_a_variable_that_is_no_port_is_named(self):
        with pytest.raises(BadOption, match="TRUNKLINE_EDGE_PORT=http"):
            plan_of([], {"TRUNKLINE_EDGE_PORT": "http"})

    def test_a_folder_of_agents_that_is_not_there_is_named(self):
        with pytest.raises(BadOption, match="/nowhere/agents"):
            plan_of(["--agents", "/nowhere/agents"], {})

    def test_workers_that_cannot_be_multiplied_are_an_error_of_the_option(self):
        with pytest.raises(BadOption, match="--workers"):
            plan_of(["--workers", "edge=2"], {})

    def test_a_plan_of_nothing_is_the_five_services_and_an_embedded_bus(self):
        plan = plan_of([], {})
        assert [spec.name for spec in plan.services] == ["edge", "stt", "brain", "tts", "events"]
        assert plan.nats_url == ""

    def test_help_says_everything(self, capsys):
        with pytest.raises(SystemExit):
            plan_of(["--help"], {})
        out = capsys.readouterr().out
        for word in ("--reload", "--workers", "--data", "TRUNKLINE_NATS_URL", "examples:"):
            assert word in out


class TestColour:
    def test_a_terminal_has_colours_and_a_file_has_none(self):
        assert wants_colour({}, tty=True)
        assert not wants_colour({}, tty=False)

    def test_the_user_has_the_last_word(self):
        assert not wants_colour({"NO_COLOR": "1"}, tty=True)
        assert wants_colour({"FORCE_COLOR": "1"}, tty=False)


class TestJournal:
    def test_tags_are_aligned(self):
        assert tagged("stt", "hello", 6, colour=False) == "stt    │ hello"

    def test_every_service_has_its_colour_and_warnings_stand_out(self):
        line = tagged("stt", "12:00:00.000 warning stt   late", 6, colour=True)
        assert line == "\x1b[32mstt    │\x1b[0m 12:00:00.000 \x1b[33mwarning\x1b[0m stt   late"

    def test_a_word_in_the_message_is_no_level(self):
        assert "\x1b[31m" not in tagged("stt", "12:00:00.000 info    stt   no error so far", 6, colour=True)

    def test_second_processes_share_the_colour_of_their_service(self):
        assert tagged("stt-2", "x", 6, colour=True).startswith("\x1b[32m")


class TestReadiness:
    def test_200_is_ready(self):
        assert reason_in(b"HTTP/1.1 200 OK\r\n\r\n{}") is None

    def test_problems_are_named(self):
        body = json.dumps({"ready": False, "problems": {"bus": "not connected"}}).encode()
        assert reason_in(b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + body) == "bus: not connected"

    @pytest.mark.parametrize(
        "answer", [b"HTTP/1.1 404 Not Found\r\n\r\n[]", b"", b"\xff\xfe", b"HTTP/1.1 500\r\n\r\n{}"]
    )
    def test_anything_else_is_not_ready(self, answer):
        assert reason_in(answer)


class TestReload:
    what = Watched(
        {
            Path("/src/stt"): frozenset({"stt"}),
            Path("/src/bus"): frozenset({"stt", "edge"}),
            Path("/src/demo/restaurant.py"): frozenset({"brain"}),
        },
        Path("/agents"),
    )

    def test_code_of_a_service_concerns_that_service(self):
        assert concerned([Path("/src/stt/vad.py")], self.what) == Concerned(frozenset({"stt"}))

    def test_code_of_a_library_concerns_everybody_built_on_it(self):
        assert concerned([Path("/src/bus/deep/er.py")], self.what).services == {"stt", "edge"}

    def test_a_watched_file_stands_for_itself(self):
        assert concerned([Path("/src/demo/restaurant.py")], self.what).services == {"brain"}
        assert concerned([Path("/src/demo/other.py")], self.what) == Concerned()

    def test_an_agent_file_concerns_no_process(self):
        assert concerned([Path("/agents/bench.toml")], self.what) == Concerned(frozenset(), ("bench",))

    def test_caches_and_notes_concern_nobody(self):
        assert concerned([Path("/src/stt/x.pyc"), Path("/src/stt/README.md")], self.what) == Concerned()


class TestPorts:
    def test_a_listening_port_is_not_free_even_if_it_is_shared(self):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            assert not ports.is_free(port)
            assert ports.next_free(port) != port

    def test_the_listener_is_found_in_the_kernels_table(self):
        rows = [
            "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1",
            "1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 4712 1",
            "2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4713 1",
        ]
        assert ports.listeners(rows, 8080) == {"4711"}

    def test_the_error_suggests_another_port(self):
        assert "use --port 8081" in str(PortTaken(8080, "python -m http.server (pid 7)", 8081))


class TestEndings:
    def test_codes_and_signals_are_named(self):
        assert [ending(0), ending(3), ending(-9), ending(-99)] == ["exit code 0", "exit code 3", "SIGKILL", "signal 99"]


class TestWhereabouts:
    note = whereabouts.Whereabouts("nats://127.0.0.1:1", "http://127.0.0.1:2", os.getpid())

    def test_the_note_is_there_for_the_length_of_the_block_and_private(self, tmp_path):
        path = whereabouts.note_path({"XDG_RUNTIME_DIR": str(tmp_path)}, uid=5)
        assert path == tmp_path / "trunkline-5" / "dev.json"
        with whereabouts.left(self.note, path):
            assert whereabouts.read(path) == self.note
            assert path.parent.stat().st_mode & 0o777 == 0o700
        assert not path.parent.exists()

    def test_somebody_elses_note_stays(self, tmp_path):
        path = tmp_path / "t" / "dev.json"
        theirs = whereabouts.Whereabouts("nats://x", "http://y", 1)
        with whereabouts.left(self.note, path), whereabouts.left(theirs, path.with_name("theirs.json")):
            path.with_name("theirs.json").rename(path)
        assert path.exists()

    def test_a_note_nobody_stands_behind_is_no_note(self, tmp_path):
        path = tmp_path / "dev.json"
        assert whereabouts.read(path) is None
        path.write_text('{"nats_url": "a", "edge_url": "b", "pid": 4194305}')
        assert whereabouts.read(path) is None
        path.write_text("not json")
        assert whereabouts.read(path) is None

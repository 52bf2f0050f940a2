"""A stand-in for a service: answers ``/health/ready`` and can be told to misbehave.

Files in $STANDIN_DIR steer it: `dead-on-arrival` (exit at once), `never-ready`, `deaf` (ignores SIGTERM), `busy` (a
drain lasts until the file is gone).
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(os.environ["STANDIN_DIR"])


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"ready": true, "problems": {}}'
        status = 200
        if (FOLDER / "never-ready").exists():
            body, status = b'{"ready": false, "problems": {"model": "still loading"}}', 503
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def main(port_variable: str) -> None:
    if (FOLDER / "dead-on-arrival").exists():
        print("no such model", file=sys.stderr)
        sys.exit(3)
    asked = threading.Event()
    if (FOLDER / "deaf").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ[port_variable])), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("hello from", os.getpid())
    asked.wait()
    while (FOLDER / "busy").exists():
        time.sleep(0.02)
    print("goodbye")
    os._exit(0)

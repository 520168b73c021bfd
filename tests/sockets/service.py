"""A service that knows clients, and publishes keys, for the tests.

Each line of its input says what it says from then on: {"path": P, "user": U,
"status": S, "headers": {...}, "body": TEXT}, where without a user it is for
everybody, and "hold": true never answers. Its output is its port, and then a
line of JSON for each request.
"""

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

written = threading.Lock()
answers = {}


def tell(line):
    with written:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)
        self.answer(asked, asked["user"])

    def do_GET(self):
        self.answer(None, None)

    def answer(self, asked, user):
        with written:
            said = answers.get((self.path, user)) or answers.get((self.path, None)) or {"status": 404}
        headers = {name.lower(): value for name, value in self.headers.items()}
        tell({"path": self.path, "asked": asked, "headers": headers})
        if said.get("hold"):
            # Until the other side closes.
            self.rfile.read(1)
            return
        body = said.get("body", "").encode()
        self.send_response(said["status"])
        for name, value in said.get("headers", {}).items():
            self.send_header(name, value)
        if said["status"] != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    port, certificate, key = (sys.argv[1:] + ["", ""])[:3]
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell({"port": server.server_address[1]})
    for line in sys.stdin:
        said = json.loads(line)
        with written:
            answers[(said["path"], said.get("user"))] = said
        tell({"taken": True})


main()

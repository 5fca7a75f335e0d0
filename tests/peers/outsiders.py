"""Servers that are no homeservers, played by the test: over HTTPS on loopback, with certificates of the test's authority."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Outsider:
    """`answer(method, path, body)` returns a status and a JSON body."""

    def __init__(self, authority):
        self.authority = authority
        certificate, key = authority.issue()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.http.daemon_threads = True
        # The handshake is made by the connection's own thread, at its first read.
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.name = f"localhost:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def handler_of(outsider):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def respond(self):
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            body = json.loads(content) if content else {}
            status, answer = outsider.answer(self.command, unquote(urlsplit(self.path).path), body)
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PUT = respond

        def log_message(self, *_):
            pass

    return Handler


UNRECOGNIZED = 404, {"errcode": "M_UNRECOGNIZED", "error": "not played"}

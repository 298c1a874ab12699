"""What the application speaks to, on a free port that it prints: an OTLP receiver (POST) and the profiles (GET)."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROFILES = b'{"andrew": {"name": "Andrew"}, "louis": {"name": "Louis"}, "mina": {"name": "Mina"}}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"", "application/x-protobuf")

    def do_GET(self) -> None:
        self.answer(PROFILES, "application/json")

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()

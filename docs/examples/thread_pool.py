import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

from mifuse_runtime import AudioError, Recognizer, read_audio

MOST = 10 << 20  # bytes of a file
LONGEST = 60.0  # seconds of audio in it


class Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds without a byte: a slow client must not hold a thread

    def do_POST(self):
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MOST:
            return self.answer(413, {"error": f"send a file of at most {MOST} bytes, with its length"})
        recognizer = self.server.recognizer
        try:
            body = io.BytesIO(self.rfile.read(int(size)))
            samples = read_audio(body, recognizer.sample_rate, longest=LONGEST)
            return self.answer(200, asdict(recognizer.predict(samples)))
        except AudioError as error:
            return self.answer(400, {"error": str(error)})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingMixIn, HTTPServer):
    """Requests wait for one of a few threads; all share a recogniser, each run of which takes one core."""

    def __init__(self, address, bundle):
        super().__init__(address, Handler)
        self.recognizer = Recognizer.load(bundle)
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def process_request(self, request, client_address):
        self.pool.submit(self.process_request_thread, request, client_address)


if __name__ == "__main__":
    Server(("127.0.0.1", 8079), sys.argv[1]).serve_forever()

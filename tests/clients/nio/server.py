"""A Myelin of the scenario's own: free loopback port, temporary data directory, ended by its process id."""

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
PORTS = (20_000, 32_000)


class Server:
    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="myelin-nio-")
        self.log = Path(self.directory.name) / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if kind is not None:
            print("--- the end of the server's log:", *self.log.read_text().splitlines()[-40:], sep="\n")
        self.directory.cleanup()

    def start(self):
        listen = f'server.listen=[{{ address = "127.0.0.1:{self.port}" }}]'
        command = [os.environ["MYELIN_BIN"], "serve", "--dev", "--set", listen]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory.name, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.is_ready():
            status = self.process.poll()
            assert status is None, f"the server ended with {status}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"the server is not ready after {READY_SECONDS_MAX} s:\n{self.log.read_text()}"
            time.sleep(0.05)

    def stop(self, number):
        """Ends the server with a signal; after SIGTERM it has to end by itself, with status 0."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=STOP_SECONDS_MAX)
        expected = 0 if number == signal.SIGTERM else -number
        assert status == expected, f"after {number.name} the server ended with {status}, not {expected}"

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def free_port():
    """Below those that the system gives to outgoing connections, which may have taken it by the time the server starts."""
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue

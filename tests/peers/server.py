"""Servers of the test's own, on free loopback ports, in temporary directories, ended by their process ids."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import requests
from signedjson.key import encode_verify_key_base64, get_verify_key, read_signing_keys

from network import process_owns
from waiting import eventually

READY_SECONDS_MAX = 90
STOP_SECONDS_MAX = 40
PORTS = (20_000, 32_000)

given = set()


class Server:
    """`label` is how the server is called in the report; `name` is its Matrix name."""

    def __init__(self, label, world):
        self.label = label
        self.world = world
        self.directory = world.directory / label
        self.directory.mkdir()
        self.log = self.directory / "server.log"
        self.client_port, self.backend_port = free_port(), free_port()
        self.name = f"localhost:{world.network.relay(self, self.backend_port)}"
        self.url = f"http://127.0.0.1:{self.client_port}"
        self.process = None
        self.configure()

    def __repr__(self):
        return self.label

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )

    def environment(self):
        return {}

    def wait_until_ready(self):
        eventually(self.is_ready, f"{self} is ready", READY_SECONDS_MAX)

    def stop(self, number=signal.SIGTERM):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def is_ready(self):
        status = self.process.poll()
        if status is not None:
            sys.exit(f"{self} ended with {status}:\n{self.end_of_log()}")
        try:
            return requests.get(f"{self.url}/_matrix/client/versions", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def owns_socket(self, inode):
        return self.process is not None and process_owns(self.process.pid, inode)

    def end_of_log(self, lines=40):
        if not self.log.exists():
            return "it was not started"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Myelin(Server):
    # Events after which it does not repeat an outage event by event.
    MANY = 5_200

    def configure(self):
        cert, key = self.world.authority.issue()
        listen = (
            f'[{{ address = "127.0.0.1:{self.client_port}", serves = ["client", "admin"] }},'
            f' {{ address = "127.0.0.1:{self.backend_port}", serves = ["federation"],'
            f' tls = {{ cert = "{cert}", key = "{key}" }} }}]'
        )
        self.settings = {
            "server.name": f'"{self.name}"',
            "server.listen": listen,
            "federation.ca_file": f'"{self.world.authority.file}"',
            "federation.allow_addresses": '["127.0.0.0/8", "::1/128"]',
            "identity.trusted_servers": f'["{self.world.identity.name}"]',
            "rate_limits.enabled": "false",
            "log.filter": f'"{os.environ.get("MYELIN_LOG", "info")}"',
        }

    def command(self):
        return [os.environ["MYELIN_BIN"], "serve", "--dev", *self.set()]

    def set(self):
        return [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]

    def hurry(self, other):
        """Tries `other` again now instead of when its back-off is over."""
        self.manage("federation", "retry", other.name)

    def rotate_key(self):
        """While it is stopped."""
        self.manage("key", "rotate")

    def manage(self, *words):
        command = [os.environ["MYELIN_BIN"], *words, *self.set()]
        said = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, f"'myelin {' '.join(words)}' failed: {said.stdout}{said.stderr}"


class Synapse(Server):
    # It takes a hundred times as long for each.
    MANY = 150

    def configure(self, **more):
        (self.directory / "homeserver.yaml").write_text(json.dumps({**self.configuration(), **more}))
        (self.directory / "log.yaml").write_text(json.dumps(self.logging()))
        # Key generation is the only thing that is done before the start.
        subprocess.run([*self.command(), "--generate-keys"], cwd=self.directory, check=True, stdout=subprocess.DEVNULL)

    def command(self):
        return [sys.executable, "-m", "synapse.app.homeserver", "--config-path", str(self.directory / "homeserver.yaml")]

    def environment(self):
        # Whom it trusts beyond federation: identity servers.
        return {"SSL_CERT_FILE": str(self.world.authority.file)}

    def logging(self):
        handlers = {"console": {"class": "logging.StreamHandler", "formatter": "timed"}}
        formatters = {"timed": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}}
        level = os.environ.get("SYNAPSE_LOG", "WARNING")
        root = {"level": level, "handlers": ["console"]}
        return {"version": 1, "formatters": formatters, "handlers": handlers, "root": root, "disable_existing_loggers": False}

    def configuration(self):
        cert, key = self.world.authority.issue()
        plenty = {"per_second": 1_000_000, "burst_count": 1_000_000}
        listeners = [
            {"port": self.client_port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": False,
             "resources": [{"names": ["client"]}]},
            {"port": self.backend_port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": True,
             "resources": [{"names": ["federation"]}]},
        ]
        return {
            "server_name": self.name,
            "pid_file": str(self.directory / "synapse.pid"),
            "listeners": listeners,
            "tls_certificate_path": str(cert),
            "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(self.world.authority.file)],
            "ip_range_blacklist": [],
            "federation": {
                "destination_min_retry_interval": 500,
                "destination_retry_multiplier": 1,
                "destination_max_retry_interval": "1s",
                "max_short_retries": 1,
                "max_short_retry_delay": "1s",
                "max_long_retries": 2,
                "max_long_retry_delay": "2s",
            },
            "database": {"name": "sqlite3", "args": {"database": str(self.directory / "homeserver.db")}},
            "log_config": str(self.directory / "log.yaml"),
            "media_store_path": str(self.directory / "media"),
            "signing_key_path": str(self.directory / "signing.key"),
            "macaroon_secret_key": "peers",
            "form_secret": "peers",
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "report_stats": False,
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "bcrypt_rounds": 4,
            "default_room_version": "12",
            "allow_public_rooms_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "presence": {"enabled": True},
            "rc_message": plenty,
            "rc_registration": plenty,
            "rc_admin_redaction": plenty,
            "rc_room_creation": plenty,
            "rc_login": {"address": plenty, "account": plenty, "failed_attempts": plenty},
            "rc_joins": {"local": plenty, "remote": plenty},
            "rc_joins_per_room": plenty,
            "rc_presence": {"per_user": plenty},
            "rc_invites": {"per_room": plenty, "per_user": plenty, "per_issuer": plenty},
            "rc_federation": {"window_size": 1000, "sleep_limit": 1_000_000, "sleep_delay": 0, "reject_limit": 1_000_000, "concurrent": 100},
            "caches": {"sync_response_cache_duration": "0s"},
        }

    def hurry(self, other):
        """Its back-off is a second."""

    def rotate_key(self):
        file = self.directory / "signing.key"
        with file.open() as lines:
            key, = read_signing_keys(lines)
        file.unlink()
        public = encode_verify_key_base64(get_verify_key(key))
        old = {f"ed25519:{key.version}": {"key": public, "expired_ts": int(time.time() * 1000)}}
        self.configure(old_signing_keys=old)


def free_port():
    """Below those that the system gives to outgoing connections, which may have taken it by the time the server starts."""
    while True:
        port = random.randrange(*PORTS)
        if port in given:
            continue
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                given.add(port)
                return port
            except OSError:
                continue

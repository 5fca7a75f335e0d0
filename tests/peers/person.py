"""A user at one of the servers: the Client-Server API without a library in between, and a memory of what /sync said."""

import itertools
import time
from collections import defaultdict
from quoting import quote

import requests

from waiting import SECONDS_MAX, NeverHappened

SYNC_TIMEOUT_MS = 1000
REQUEST_SECONDS_MAX = 60
LAZILY = '{"room":{"state":{"lazy_load_members":true}}}'
PASSWORD = "correct horse battery staple"

serial = itertools.count(1)


class Refused(Exception):
    """The server said no."""

    def __init__(self, call, status, body):
        super().__init__(f"{call}: {status} {body}")
        self.status = status
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


class Room:
    """What /sync said about a room."""

    def __init__(self):
        self.timeline = {}
        self.state = {}
        self.typing = set()
        # Event ids by user and thread ("" for none).
        self.receipts = {}
        # Users and types.
        self.receipt_types = set()

    def remember(self, events):
        for event in events:
            if "state_key" in event:
                self.state[event["type"], event["state_key"]] = event

    def membership(self, user_id):
        event = self.state.get(("m.room.member", user_id))
        return event and event["content"].get("membership")


class Person:
    def __init__(self, server, name="person"):
        self.server = server
        self.session = requests.Session()
        self.token = None
        self.since = None
        # Whether /sync need not show all members.
        self.lazy = False
        self.rooms = defaultdict(Room)
        self.invites = {}
        self.knocks = {}
        self.left = set()
        self.presence = {}
        self.to_device = []
        self.devices_changed = set()
        self.transactions = itertools.count(1)
        localpart = f"{name}-{next(serial)}"
        body = {"username": localpart, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        account = self.call("POST", "/v3/register", body)
        self.user_id, self.device_id, self.token = account["user_id"], account["device_id"], account["access_token"]

    def __repr__(self):
        return f"{self.user_id} at {self.server}"

    def call(self, method, path, body=None, **query):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.server.url}/_matrix/client{path}"
        if body is None and method in ("POST", "PUT"):
            body = {}
        answer = self.session.request(method, url, json=body, params=query, headers=headers, timeout=REQUEST_SECONDS_MAX)
        try:
            content = answer.json()
        except ValueError:
            content = answer.text
        if answer.status_code != 200:
            raise Refused(f"{self}: {method} {path}", answer.status_code, content)
        return content

    # Rooms

    def create_room(self, version, **options):
        options.setdefault("preset", "public_chat")
        return self.call("POST", "/v3/createRoom", {"room_version": version, **options})["room_id"]

    def join(self, room, *via):
        return self.call("POST", f"/v3/join/{quote(room)}", {}, server_name=list(via), via=list(via))["room_id"]

    def knock(self, room, *via):
        return self.call("POST", f"/v3/knock/{quote(room)}", {"reason": "let me in"}, server_name=list(via), via=list(via))

    def act(self, action, room, user_id=None):
        body = {"user_id": user_id} if user_id else {}
        return self.call("POST", f"/v3/rooms/{quote(room)}/{action}", body)

    def send(self, room, content, kind="m.room.message"):
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        path = f"/v3/rooms/{quote(room)}/send/{kind}/{self.transaction()}"
        return self.call("PUT", path, content)["event_id"]

    def set_state(self, room, kind, content, key=""):
        return self.call("PUT", f"/v3/rooms/{quote(room)}/state/{kind}/{quote(key)}", content)["event_id"]

    def state(self, room, kind, key=""):
        return self.call("GET", f"/v3/rooms/{quote(room)}/state/{kind}/{quote(key)}")

    def redact(self, room, event_id):
        path = f"/v3/rooms/{quote(room)}/redact/{quote(event_id)}/{self.transaction()}"
        return self.call("PUT", path, {"reason": "a test"})["event_id"]

    def event(self, room, event_id):
        return self.call("GET", f"/v3/rooms/{quote(room)}/event/{quote(event_id)}")

    def transaction(self):
        return f"t{next(self.transactions)}"

    def full_state(self, room):
        """The event id of every entry of the room's current state."""
        events = self.call("GET", f"/v3/rooms/{quote(room)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def joined_members(self, room):
        return set(self.call("GET", f"/v3/rooms/{quote(room)}/joined_members")["joined"])

    def history(self, room, events_max=None):
        """From the newest event back to the creation of the room, as far as the server goes."""
        found, token = [], None
        while events_max is None or len(found) < events_max:
            page = self.call("GET", f"/v3/rooms/{quote(room)}/messages", dir="b", limit=50, **({"from": token} if token else {}))
            found += page["chunk"]
            token = page.get("end")
            if not token:
                break
        return found

    # What comes in

    def sync(self, timeout_ms=SYNC_TIMEOUT_MS):
        query = {"timeout": timeout_ms, **({"since": self.since} if self.since else {"timeout": 0})}
        if self.lazy:
            query["filter"] = LAZILY
        answer = self.call("GET", "/v3/sync", **query)
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for room_id, room in rooms.get("join", {}).items():
            self.invites.pop(room_id, None)
            self.knocks.pop(room_id, None)
            self.left.discard(room_id)
            self.remember(self.rooms[room_id], room)
        for room_id, room in rooms.get("leave", {}).items():
            self.invites.pop(room_id, None)
            self.knocks.pop(room_id, None)
            self.left.add(room_id)
            self.remember(self.rooms[room_id], room)
        for room_id, room in rooms.get("invite", {}).items():
            self.left.discard(room_id)
            self.invites[room_id] = {event["type"]: event for event in room["invite_state"]["events"]}
        for room_id, room in rooms.get("knock", {}).items():
            self.knocks[room_id] = {event["type"]: event for event in room["knock_state"]["events"]}
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        self.to_device += answer.get("to_device", {}).get("events", [])
        self.devices_changed.update(answer.get("device_lists", {}).get("changed", []))

    def remember(self, room, said):
        room.remember(said.get("state", {}).get("events", []))
        timeline = said.get("timeline", {}).get("events", [])
        room.remember(timeline)
        room.timeline.update({event["event_id"]: event for event in timeline})
        for event in said.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing":
                room.typing = set(event["content"]["user_ids"])
            if event["type"] == "m.receipt":
                for event_id, receipts in event["content"].items():
                    room.receipt_types.update((user_id, kind) for kind, users in receipts.items() for user_id in users)
                    for user_id, receipt in receipts.get("m.read", {}).items():
                        room.receipts[user_id, receipt.get("thread_id", "")] = event_id

    def wait(self, condition, what, seconds_max=SECONDS_MAX):
        """Syncs until `condition` holds."""
        deadline = time.monotonic() + seconds_max
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise NeverHappened(f"{self} never sees: {what}")
            self.sync()
        return value

    def sees(self, room, *event_ids):
        missing = lambda: [event_id for event_id in event_ids if event_id not in self.rooms[room].timeline]
        self.wait(lambda: not missing(), f"events {event_ids} in {room}")

    def sees_membership(self, room, person, membership):
        what = f"{person.user_id} as {membership} in {room}"
        self.wait(lambda: self.rooms[room].membership(person.user_id) == membership, what)

    def sees_state(self, room, kind, content, key=""):
        seen = lambda: self.rooms[room].state.get((kind, key), {}).get("content")
        self.wait(lambda: seen() == content, f"{kind} {content} in {room}")

    def sees_invite(self, room):
        return self.wait(lambda: self.invites.get(room), f"an invite to {room}")

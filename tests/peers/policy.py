"""Rooms with a policy server (Server-Server API, "Policy Servers"): a member of the room that signs what it recommends."""

import requests
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import add_hashes_and_signatures, compute_event_signature
from synapse.events import make_event_from_dict

from outsiders import UNRECOGNIZED, Outsider
from person import Refused
from quoting import quote
from story import agree, scenario
from waiting import eventually

FOR_EVER_MS = 4_000_000_000_000


class PolicyServer(Outsider):
    """Knows as much of federation as it takes to join a room, and what it wants to be said there."""

    def __init__(self, authority):
        self.key = generate_signing_key("server")
        self.policy_key = generate_signing_key("policy_server")
        self.versions = {}
        self.asked = []
        super().__init__(authority)
        self.user_id = f"@policy:{self.name}"

    def answer(self, method, path, body):
        if path.startswith("/_matrix/key/v2/server"):
            return 200, self.keys()
        if path.startswith("/_matrix/federation/v1/send/"):
            return 200, {"pdus": {}}
        if (method, path) == ("POST", "/_matrix/policy/v1/sign"):
            return self.judge(body)
        return UNRECOGNIZED

    def keys(self):
        public = {f"ed25519:{self.key.version}": {"key": encode_verify_key_base64(get_verify_key(self.key))}}
        answer = {"server_name": self.name, "valid_until_ts": FOR_EVER_MS, "verify_keys": public, "old_verify_keys": {}}
        return sign_json(answer, self.name, self.key)

    def judge(self, event):
        self.asked.append(event)
        if "spam" in event["content"].get("body", ""):
            return 400, {"errcode": "M_FORBIDDEN", "error": "no spam here"}
        # The room id of a create event of version 12 is not in it; nobody shows one here.
        version = KNOWN_ROOM_VERSIONS[self.versions[event["room_id"]]]
        return 200, compute_event_signature(version, event, self.name, self.policy_key)

    def joins(self, room, version, server):
        self.versions[room] = version
        path = f"/_matrix/federation/v1/make_join/{quote(room)}/{quote(self.user_id)}?ver={version}"
        event = self.request("GET", server, path)["event"]
        rules = KNOWN_ROOM_VERSIONS[version]
        add_hashes_and_signatures(rules, event, self.name, self.key)
        event.pop("unsigned", None)
        event_id = make_event_from_dict(event, rules).event_id
        self.request("PUT", server, f"/_matrix/federation/v2/send_join/{quote(room)}/{quote(event_id)}", event)

    def request(self, method, server, path, content=None):
        said = {"method": method, "uri": path, "origin": self.name, "destination": server.name}
        signed = sign_json({**said, **({"content": content} if content else {})}, self.name, self.key)
        (key_id, signature), = signed["signatures"][self.name].items()
        parameters = f'origin="{self.name}",destination="{server.name}",key="{key_id}",sig="{signature}"'
        headers = {"Authorization": f"X-Matrix {parameters}"}
        verify = str(self.authority.file)
        answer = requests.request(
            method, f"https://{server.name}{path}", json=content, headers=headers, verify=verify, timeout=60
        )
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


@scenario(["10", "12"])
def a_policy_server(stage):
    """What it does not recommend is refused at either server; what it signs is seen by all."""
    policy = stage.world.policy
    host, guest, room = stage.couple(name="well-kept")
    policy.joins(room, stage.version, stage.home)
    member = lambda person: person.rooms[room].membership(policy.user_id) == "join"
    for person in (host, guest):
        person.wait(lambda: member(person), "the policy server in the room")
    key = encode_verify_key_base64(get_verify_key(policy.policy_key))
    content = {"via": policy.name, "public_keys": {"ed25519": key}}
    host.set_state(room, "m.room.policy", content)
    guest.sees_state(room, "m.room.policy", content)

    for writer, reader in [(host, guest), (guest, host)]:
        refusal = refused_by_policy(writer, room)
        assert refusal.errcode == "M_FORBIDDEN", refusal
        message = writer.send(room, "well said")
        reader.sees(room, message)
        asked = {event["content"].get("body") for event in policy.asked if event["sender"] == writer.user_id}
        assert {"well said", "spam"} <= asked, asked

    # Without a policy, everything may be said again.
    host.set_state(room, "m.room.policy", {})
    guest.sees_state(room, "m.room.policy", {})
    message = eventually(lambda: guest.send(room, "spam at last"), "a message without policy")
    host.sees(room, message)
    agree(room, host, guest)


def refused_by_policy(writer, room):
    """Synapse passes on the policy server's own status, which is 400 as the specification has it."""
    try:
        writer.send(room, "spam")
    except Refused as refusal:
        assert refusal.status in (400, 403), refusal
        return refusal
    raise AssertionError(f"the policy server did not keep {writer} from sending spam")

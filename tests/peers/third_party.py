"""Invites to addresses that are nobody's yet: the identity server is played by the test, as Sydent does it."""

import itertools

import requests
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json

from outsiders import UNRECOGNIZED, Outsider
from quoting import quote
from story import agree, refused, scenario

IDENTITY = "/_matrix/identity/v2"
tokens = itertools.count(1)


class IdentityServer(Outsider):
    def __init__(self, authority):
        self.key = generate_signing_key("0")
        self.invites = []
        super().__init__(authority)

    def answer(self, method, path, body):
        match method, path.removeprefix(IDENTITY):
            case "GET", "/hash_details":
                return 200, {"lookup_pepper": "pepper", "algorithms": ["sha256"]}
            case "POST", "/lookup":
                return 200, {"mappings": {}}
            case "POST", "/store-invite":
                return 200, self.store(body)
            case "GET", "/pubkey/isvalid":
                return 200, {"valid": True}
        return UNRECOGNIZED

    def store(self, invite):
        token = f"token{next(tokens)}"
        self.invites.append({**invite, "token": token})
        public = encode_verify_key_base64(get_verify_key(self.key))
        url = f"https://{self.name}{IDENTITY}/pubkey/isvalid"
        key = {"public_key": public, "key_validity_url": url}
        return {"token": token, "public_keys": [key], "display_name": "s...@e..."}

    def bind(self, address, person):
        """The address turns out to be the person's: their server is told of the invites that were kept for it."""
        invites = [self.signed(invite, person) for invite in self.invites if invite["address"] == address]
        body = {"medium": "email", "address": address, "mxid": person.user_id, "invites": invites}
        url = f"https://{person.server.name}/_matrix/federation/v1/3pid/onbind"
        # Sydent says POST where the specification says PUT; Synapse knows POST only.
        return requests.post(url, json=body, verify=str(self.authority.file), timeout=60)

    def signed(self, invite, person):
        said = {"mxid": person.user_id, "token": invite["token"]}
        signed = sign_json({**said, "sender": invite["sender"]}, self.name, self.key)
        names = {"medium": "email", "address": invite["address"], "mxid": person.user_id}
        return {**names, "room_id": invite["room_id"], "sender": invite["sender"], "signed": signed}


def invite(host, room, identity, address):
    body = {"id_server": identity.name, "id_access_token": "a token", "medium": "email", "address": address}
    host.call("POST", f"/v3/rooms/{quote(room)}/invite", body)
    key = lambda: [key for kind, key in host.rooms[room].state if kind == "m.room.third_party_invite"]
    return host.wait(key, "the invite to the address")[0]


@scenario(["6", "11", "12"])
def an_invite_to_an_address(stage):
    """Whose it is turns out later; the server of that user has the invite made by the one that sent it."""
    identity = stage.world.identity
    host, guest = stage.at_home(), stage.at_away()
    room = host.create_room(stage.version, preset="private_chat", name="by letter")
    address = f"{guest.user_id[1:].split(':')[0]}@example.org"
    token = invite(host, room, identity, address)
    refused(403, guest.join, room, stage.home.name)
    answer = identity.bind(address, guest)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    shown = guest.sees_invite(room)
    assert shown["m.room.name"]["content"]["name"] == "by letter", shown
    host.sees_membership(room, guest, "invite")
    member = host.state(room, "m.room.member", guest.user_id)
    assert member["third_party_invite"]["signed"]["token"] == token, member
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    message = guest.send(room, "your letter came")
    host.sees(room, message)
    agree(room, host, guest)


@scenario()
def an_invite_to_an_address_taken_back(stage):
    identity = stage.world.identity
    host, guest = stage.at_home(), stage.at_away()
    room = host.create_room(stage.version, preset="private_chat")
    address = f"{guest.user_id[1:].split(':')[0]}@example.org"
    token = invite(host, room, identity, address)
    host.set_state(room, "m.room.third_party_invite", {}, token)
    # Servers differ in whether they tell the identity server; nobody is invited.
    identity.bind(address, guest)
    refused(403, guest.join, room, stage.home.name)
    assert ("m.room.member", guest.user_id) not in host.full_state(room)

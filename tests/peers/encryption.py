"""What end-to-end encryption needs of servers: device lists, keys, messages to devices; and two clients that use it."""

import os
import subprocess
from pathlib import Path

from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json

from quoting import quote

from story import scenario
from waiting import eventually


def upload(person):
    """Publishes device keys and a one-time key, signed by the device; returns its ed25519 key."""
    signing = generate_signing_key(person.device_id)
    public = encode_verify_key_base64(get_verify_key(signing))
    names = {"user_id": person.user_id, "device_id": person.device_id}
    keys = {f"ed25519:{person.device_id}": public, f"curve25519:{person.device_id}": "A" * 43}
    device = {**names, "algorithms": ["m.olm.v1.curve25519-aes-sha2"], "keys": keys}
    one_time = {"signed_curve25519:AAAA": sign_json({"key": "C" * 43}, person.user_id, signing)}
    body = {"device_keys": sign_json(device, person.user_id, signing), "one_time_keys": one_time}
    person.call("POST", "/v3/keys/upload", body)
    return public


def devices(asking, asked):
    answer = asking.call("POST", "/v3/keys/query", {"device_keys": {asked.user_id: []}})
    return answer["device_keys"].get(asked.user_id, {})


def comes_to_know(stage):
    host, guest, room = stage.couple()
    for person, other in [(host, guest), (guest, host)]:
        person.public = upload(person)
        other.wait(lambda: person.user_id in other.devices_changed, f"that the devices of {person} have changed")
    return host, guest, room


@scenario()
def device_lists_and_keys(stage):
    host, guest, _ = comes_to_know(stage)
    for person, other in [(host, guest), (guest, host)]:
        known = lambda: devices(other, person).get(person.device_id)
        keys = eventually(known, f"the keys of {person}")
        assert keys["keys"][f"ed25519:{person.device_id}"] == person.public, keys
        wanted = {"one_time_keys": {person.user_id: {person.device_id: "signed_curve25519"}}}
        claimed = other.call("POST", "/v3/keys/claim", wanted)["one_time_keys"]
        assert claimed[person.user_id][person.device_id]["signed_curve25519:AAAA"]["key"] == "C" * 43, claimed
        again = other.call("POST", "/v3/keys/claim", wanted)["one_time_keys"]
        assert not again.get(person.user_id, {}).get(person.device_id), f"a one-time key was given twice: {again}"


@scenario()
def messages_to_devices(stage):
    host, guest, _ = comes_to_know(stage)
    for sender, receiver in [(host, guest), (guest, host)]:
        for n in range(3):
            to_device(sender, receiver, n)
        receiver.wait(lambda: len(to_device_from(sender, receiver)) == 3, "three messages")
        assert to_device_from(sender, receiver) == [0, 1, 2]


def to_device(sender, receiver, number):
    messages = {receiver.user_id: {receiver.device_id: {"n": number}}}
    sender.call("PUT", f"/v3/sendToDevice/m.test/{sender.transaction()}", {"messages": messages})


def to_device_from(sender, receiver):
    """The numbers that have arrived."""
    return [event["content"]["n"] for event in receiver.to_device if event["sender"] == sender.user_id]


@scenario()
def a_device_that_goes_away(stage):
    host, guest, _ = comes_to_know(stage)
    eventually(lambda: host.device_id in devices(guest, host), "the device")
    guest.devices_changed.clear()
    host.call("POST", "/v3/logout")
    guest.wait(lambda: host.user_id in guest.devices_changed, "that the devices have changed")
    eventually(lambda: host.device_id not in devices(guest, host), "that the device is gone")


CLIENT_SECONDS_MAX = 300


@scenario()
def two_clients_in_an_encrypted_room(stage):
    """matrix-js-sdk at either server: messages, verification by emoji, a second device that reads the backup, threads."""
    client = os.environ.get("JS_CLIENT") or Path(__file__).parents[2] / "target/clients/js"
    command = ["node", str(Path(client) / "across.mjs"), stage.home.url, stage.away.url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_SECONDS_MAX)
    assert said.returncode == 0, f"{said.stdout}{said.stderr}"

"""Rooms that span both servers: what people say and change there."""

from quoting import quote
from story import VERSIONS, agree, refused, scenario
from waiting import eventually


def is_redacted(person, room, event_id):
    return lambda: "redacted_because" in person.event(room, event_id).get("unsigned", {})


@scenario(VERSIONS)
def a_public_room(stage):
    """Joined, talked in both ways, edited, reacted, redacted, renamed, left: in every room version."""
    host, guest, room = stage.couple(name="a room", topic="before")
    guest.sees_state(room, "m.room.name", {"name": "a room"})
    assert host.state(room, "m.room.create").get("room_version", "1") == stage.version

    hello = host.send(room, "hello")
    guest.sees(room, hello)
    answer = guest.send(room, "hello yourself")
    host.sees(room, answer)
    assert host.rooms[room].timeline[answer]["content"]["body"] == "hello yourself"

    for writer, reader, message in [(host, guest, hello), (guest, host, answer)]:
        edit = writer.send(room, {
            "msgtype": "m.text", "body": "* hello!", "m.new_content": {"msgtype": "m.text", "body": "hello!"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": message},
        })
        reader.sees(room, edit)
        relations = reader.event(room, message)["unsigned"]["m.relations"]
        assert relations["m.replace"]["event_id"] == edit, relations
    reaction = guest.send(room, {"m.relates_to": {"rel_type": "m.annotation", "event_id": hello, "key": "+1"}}, "m.reaction")
    host.sees(room, reaction)

    own = guest.redact(room, reaction)
    host.sees(room, own)
    others = host.redact(room, answer)
    guest.sees(room, others)
    eventually(is_redacted(host, room, reaction), "the redaction of the reaction")
    eventually(is_redacted(guest, room, answer), "the redaction of the message")
    assert guest.event(room, answer)["content"] == {}

    host.set_state(room, "m.room.topic", {"topic": "after"})
    guest.sees_state(room, "m.room.topic", {"topic": "after"})
    refused(403, guest.set_state, room, "m.room.topic", {"topic": "mine"})
    levels = host.state(room, "m.room.power_levels")
    users = {**levels.get("users", {}), guest.user_id: 50}
    host.set_state(room, "m.room.power_levels", {**levels, "users": users})
    guest.wait(lambda: guest.rooms[room].state["m.room.power_levels", ""]["content"]["users"] == users, "its power")
    guest.set_state(room, "m.room.topic", {"topic": "now I may"})
    host.sees_state(room, "m.room.topic", {"topic": "now I may"})

    agree(room, host, guest)
    guest.act("leave", room)
    host.sees_membership(room, guest, "leave")
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    again = host.send(room, "welcome back")
    guest.sees(room, again)
    agree(room, host, guest)


@scenario(VERSIONS[5:])
def an_upgrade(stage):
    """The room is replaced by one of the next version; the guest follows."""
    is_replaced(stage, VERSIONS[min(int(stage.version), len(VERSIONS) - 1)])


@scenario(["1", "6", "10"])
def an_upgrade_to_the_newest_version(stage):
    is_replaced(stage, VERSIONS[-1])


def is_replaced(stage, version):
    host, guest, room = stage.couple(name="the old one")
    path = f"/v3/rooms/{room}/upgrade"
    replacement = host.call("POST", path, {"new_version": version})["replacement_room"]
    tombstone = guest.wait(lambda: guest.rooms[room].state.get(("m.room.tombstone", "")), "the tombstone")
    assert tombstone["content"]["replacement_room"] == replacement
    guest.join(replacement, stage.home.name)
    host.sees_membership(replacement, guest, "join")
    create = guest.state(replacement, "m.room.create")
    assert create["predecessor"]["room_id"] == room and create["room_version"] == version, create
    guest.sees_state(replacement, "m.room.name", {"name": "the old one"})
    message = guest.send(replacement, "moved in")
    host.sees(replacement, message)
    agree(replacement, host, guest)


def late_guest(stage, messages):
    """Who joins after so many messages, and has seen one that came after the join."""
    host = stage.at_home()
    room = host.create_room(stage.version)
    sent = [host.send(room, f"message {n}") for n in range(messages)]
    guest = stage.at_away()
    guest.join(room, stage.home.name)
    last = host.send(room, "the last one")
    guest.sees(room, last)
    return host, guest, room, sent


@scenario(["1", "6", "12"])
def history(stage):
    """Who joins late pages back to the very beginning, and sees what the others saw."""
    _, guest, room, sent = late_guest(stage, messages=60)

    def complete():
        found = [event["event_id"] for event in guest.history(room)]
        return set(sent) <= set(found) and found

    found = eventually(complete, "the whole history")
    assert len(found) == len(set(found)), "an event came twice"
    ids = [event_id for event_id in found if event_id in set(sent)]
    assert ids == sent[::-1], "not in the order in which they were sent"
    types = [event["type"] for event in guest.history(room)]
    assert types[-1] == "m.room.create", types[-5:]


@scenario()
def a_jump_to_a_date(stage):
    """Who joins late finds by time what was said before."""
    host, guest, room, sent = late_guest(stage, messages=30)
    first = host.event(room, sent[0])
    path = f"/v1/rooms/{quote(room)}/timestamp_to_event"
    found = guest.call("GET", path, ts=first["origin_server_ts"], dir="f")
    same_time = [event_id for event_id in sent if host.event(room, event_id)["origin_server_ts"] == first["origin_server_ts"]]
    assert found["event_id"] in same_time, (found, same_time)
    assert guest.event(room, found["event_id"])["content"]["body"].startswith("message ")


@scenario()
def hidden_history(stage):
    """With history_visibility joined, who comes later sees nothing of before."""
    host = stage.at_home()
    hidden = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = host.create_room(stage.version, initial_state=[hidden])
    secret = host.send(room, "a secret")
    guest = stage.at_away()
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    last = host.send(room, "no secret")
    guest.sees(room, last)
    assert secret not in [event["event_id"] for event in guest.history(room)]
    refused(404, guest.event, room, secret)


"""Who may come in, and who has to go."""

from quoting import quote

from person import Refused
from story import VERSIONS, agree, refused, scenario
from waiting import eventually


@scenario(["1", "3", *VERSIONS[5:]])
def invites(stage):
    """Into a private room: accepted, rejected, taken back."""
    host, guest = stage.at_home(), stage.at_away()
    room = host.create_room(stage.version, preset="private_chat", name="private")
    refused(403, guest.join, room, stage.home.name)
    host.act("invite", room, guest.user_id)
    shown = guest.sees_invite(room)
    assert shown["m.room.name"]["content"]["name"] == "private", shown
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    message = host.send(room, "come in")
    guest.sees(room, message)
    agree(room, host, guest)

    other = stage.at_away("other")
    host.act("invite", room, other.user_id)
    other.sees_invite(room)
    other.act("leave", room)
    host.sees_membership(room, other, "leave")
    guest.sees_membership(room, other, "leave")

    host.act("invite", room, other.user_id)
    other.sees_invite(room)
    host.act("kick", room, other.user_id)
    other.wait(lambda: room not in other.invites, "that the invite is taken back")
    agree(room, host, guest)


@scenario(["1", "10", "12"])
def an_invite_that_is_taken_back(stage):
    """Nobody else of the guest's server is in the room, so it is told of its own people only."""
    host, guest = stage.at_home(), stage.at_away()
    room = host.create_room(stage.version, preset="private_chat", name="private")
    host.act("invite", room, guest.user_id)
    guest.sees_invite(room)
    host.act("kick", room, guest.user_id)
    guest.wait(lambda: room in guest.left and room not in guest.invites, "that the invite is taken back")
    refused(403, guest.join, room, stage.home.name)
    host.act("invite", room, guest.user_id)
    guest.sees_invite(room)
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    agree(room, host, guest)


@scenario()
def a_direct_chat(stage):
    """Made with the invite in it, as clients do."""
    host, guest = stage.at_home(), stage.at_away()
    options = {"preset": "trusted_private_chat", "is_direct": True, "invite": [guest.user_id]}
    room = host.create_room(stage.version, **options)
    shown = guest.sees_invite(room)
    assert shown["m.room.member"]["content"].get("is_direct") is True, shown
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    guest.set_state(room, "m.room.topic", {"topic": "trusted"})
    host.sees_state(room, "m.room.topic", {"topic": "trusted"})
    agree(room, host, guest)


@scenario(["1", *VERSIONS[5:]])
def kicks_and_bans(stage):
    host, guest, room = stage.couple()
    host.act("kick", room, guest.user_id)
    guest.wait(lambda: room in guest.left, "that it is kicked")
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    host.act("ban", room, guest.user_id)
    guest.wait(lambda: guest.rooms[room].membership(guest.user_id) == "ban", "that it is banned")
    refused(403, guest.join, room, stage.home.name)
    host.act("unban", room, guest.user_id)
    eventually(lambda: joins(guest, room, stage.home.name), "a join after the ban is lifted")
    host.sees_membership(room, guest, "join")
    refused(403, guest.act, "kick", room, host.user_id)
    agree(room, host, guest)


@scenario(["6", "12"])
def server_acls(stage):
    """A server that the room shuts out cannot come in until it is let in. Names count without port and regardless of case."""
    host, guest = stage.at_home(), stage.at_away()
    room = host.create_room(stage.version, name="not for everybody")
    everybody = {"allow": ["*"], "allow_ip_literals": True}
    name, _ = stage.away.name.split(":")
    host.set_state(room, "m.room.server_acl", {**everybody, "deny": [name.upper()]})
    refused(403, guest.join, room, stage.home.name)
    host.set_state(room, "m.room.server_acl", {**everybody, "deny": []})
    eventually(lambda: joins(guest, room, stage.home.name), "a join after the server is let in")
    host.sees_membership(room, guest, "join")
    message = guest.send(room, "in at last")
    host.sees(room, message)
    agree(room, host, guest)


def joins(person, room, via):
    try:
        return person.join(room, via)
    except Refused:
        return None


@scenario(VERSIONS[6:])
def knocks(stage):
    """Let in, turned away, taken back."""
    host = stage.at_home()
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = host.create_room(stage.version, preset="private_chat", name="knock please", initial_state=[rule])
    guest, stranger, shy = stage.at_away(), stage.at_away("stranger"), stage.at_away("shy")

    guest.knock(room, stage.home.name)
    guest.wait(lambda: room in guest.knocks, "its own knock")
    assert guest.knocks[room]["m.room.name"]["content"]["name"] == "knock please"
    host.sees_membership(room, guest, "knock")
    host.act("invite", room, guest.user_id)
    guest.sees_invite(room)
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")

    stranger.knock(room, stage.home.name)
    stranger.wait(lambda: room in stranger.knocks, "its own knock")
    host.sees_membership(room, stranger, "knock")
    host.act("kick", room, stranger.user_id)
    guest.sees_membership(room, stranger, "leave")
    stranger.wait(lambda: room in stranger.left and room not in stranger.knocks, "that it is turned away")

    shy.knock(room, stage.home.name)
    shy.wait(lambda: room in shy.knocks, "its own knock")
    host.sees_membership(room, shy, "knock")
    shy.act("leave", room)
    host.sees_membership(room, shy, "leave")
    shy.wait(lambda: room not in shy.knocks, "that its knock is taken back")
    agree(room, host, guest)


@scenario(VERSIONS[7:])
def a_restricted_room(stage):
    """Members of a space may join, others may not."""
    host, guest = stage.at_home(), stage.at_away()
    space = host.create_room(stage.version, creation_content={"type": "m.space"}, name="space")
    allow = [{"type": "m.room_membership", "room_id": space}]
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}
    room = host.create_room(stage.version, preset="private_chat", name="inside", initial_state=[rule])
    host.set_state(space, "m.space.child", {"via": [stage.home.name]}, room)

    refused(403, guest.join, room, stage.home.name)
    guest.join(space, stage.home.name)
    host.sees_membership(space, guest, "join")
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    authoriser = guest.state(room, "m.room.member", guest.user_id)["join_authorised_via_users_server"]
    assert authoriser == host.user_id, authoriser
    message = guest.send(room, "inside")
    host.sees(room, message)
    agree(room, host, guest)

    # Once a server is in, it can let its own people in only if somebody there may invite.
    friend = stage.at_away("friend")
    friend.join(space, stage.home.name)
    host.sees_membership(space, friend, "join")
    friend.join(room, stage.home.name)
    host.sees_membership(room, friend, "join")

    children = guest.call("GET", f"/v1/rooms/{quote(space)}/hierarchy")["rooms"]
    assert {child["room_id"] for child in children} == {space, room}, children
    agree(room, host, guest)


@scenario(VERSIONS[9:])
def a_knock_restricted_room(stage):
    host, guest, friend = stage.at_home(), stage.at_away(), stage.at_away("friend")
    space = host.create_room(stage.version, creation_content={"type": "m.space"}, name="space")
    allow = [{"type": "m.room_membership", "room_id": space}]
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock_restricted", "allow": allow}}
    room = host.create_room(stage.version, preset="private_chat", name="inside", initial_state=[rule])

    friend.join(space, stage.home.name)
    host.sees_membership(space, friend, "join")
    friend.join(room, stage.home.name)
    host.sees_membership(room, friend, "join")

    refused(403, guest.join, room, stage.home.name)
    guest.knock(room, stage.home.name)
    host.sees_membership(room, guest, "knock")
    host.act("invite", room, guest.user_id)
    guest.sees_invite(room)
    # Their server is in the room, and has to know of the invite there too.
    friend.sees_membership(room, guest, "invite")
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    agree(room, host, guest)


@scenario()
def the_hierarchy_of_a_space_elsewhere(stage):
    """Rooms of a space are shown although this server is in none of them but the space."""
    host, guest = stage.at_home(), stage.at_away()
    space = host.create_room(stage.version, creation_content={"type": "m.space"}, name="space")
    rooms = {host.create_room(stage.version, name=f"room {n}") for n in range(3)}
    hidden = host.create_room(stage.version, preset="private_chat", name="hidden")
    for room in (*rooms, hidden):
        host.set_state(space, "m.space.child", {"via": [stage.home.name]}, room)
    guest.join(space, stage.home.name)

    def children():
        found = guest.call("GET", f"/v1/rooms/{quote(space)}/hierarchy")["rooms"]
        return {room["room_id"] for room in found} == {space, *rooms}

    eventually(children, "the rooms of the space, and not the hidden one")

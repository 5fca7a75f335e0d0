"""Two people at matrix-nio talk through Myelin; in the middle the server is ended, once with SIGTERM and once with SIGKILL."""

import asyncio
import logging
import signal
import sys
import time

from nio import (
    InviteMemberEvent,
    InviteNameEvent,
    JoinResponse,
    LoginError,
    LoginResponse,
    LogoutResponse,
    MessageDirection,
    ProfileGetDisplayNameResponse,
    ProfileSetDisplayNameResponse,
    ReactionEvent,
    ReceiptType,
    RedactionEvent,
    RegisterResponse,
    RoomCreateEvent,
    RoomCreateResponse,
    RoomGetEventResponse,
    RoomInviteResponse,
    RoomMemberEvent,
    RoomRedactResponse,
    RoomTypingResponse,
    SyncError,
    UpdateReceiptMarkerResponse,
    WhoamiResponse,
)
from nio.responses import RegisterErrorResponse
from encrypted import encrypted_room
from person import TIMELINE_LIMIT, Person, ok
from server import Server

PASSWORD = "correct horse battery staple"
BURST = 60
DURING_RESTART = 24


async def register_and_login(server, name):
    newcomer = Person(server.url, name)
    ok(await newcomer.client.register(name, PASSWORD), RegisterResponse)
    await newcomer.client.close()

    person = Person(server.url, name)
    taken = await person.client.register(name, PASSWORD)
    assert ok(taken, RegisterErrorResponse).status_code == "M_USER_IN_USE", taken
    wrong = await person.client.login("not " + PASSWORD)
    assert ok(wrong, LoginError).status_code == "M_FORBIDDEN", wrong
    ok(await person.client.login(PASSWORD, device_name="nio"), LoginResponse)
    who = ok(await person.client.whoami(), WhoamiResponse)
    assert (who.user_id, who.device_id) == (f"@{name}:localhost", person.client.device_id), who
    await person.sync(timeout=0)
    return person


async def create_invite_join(alice, bob):
    room = ok(await alice.client.room_create(name="Two people", topic="chat"), RoomCreateResponse).room_id
    ok(await alice.client.room_invite(room, bob.user_id), RoomInviteResponse)
    await bob.until("the invite", lambda: room in bob.client.invited_rooms)
    invited = bob.client.invited_rooms[room]
    assert (invited.name, invited.inviter) == ("Two people", alice.user_id), vars(invited)

    ok(await bob.client.join(room), JoinResponse)
    await alice.until("Bob's join", lambda: bob_is(alice, room, bob, "join"))
    await bob.until("the joined room", lambda: room in bob.client.rooms and bob_is(bob, room, bob, "join"))
    seen = bob.client.rooms[room]
    assert set(seen.users) == {alice.user_id, bob.user_id}, seen.users
    assert (seen.name, seen.topic) == ("Two people", "chat"), vars(seen)
    return room


def bob_is(viewer, room, bob, membership):
    events = [e for e in viewer.timelines.get(room, []) if isinstance(e, RoomMemberEvent)]
    return any(e.state_key == bob.user_id and e.membership == membership for e in events)


async def send_once(alice, bob, room):
    event_id = await alice.send(room, {"msgtype": "m.text", "body": "hello"}, transaction="the same")
    again = await alice.send(room, {"msgtype": "m.text", "body": "hello"}, transaction="the same")
    assert again == event_id, f"one transaction id made two events: {event_id}, {again}"
    event = await bob.until_event(room, event_id, "a message")
    assert (event.body, event.sender) == ("hello", alice.user_id), event.source
    await alice.until_event(room, event_id, "her own message")
    own = alice.event(room, event_id)
    assert own.transaction_id == "the same", f"no transaction_id for the sending device: {own.source}"
    assert event.transaction_id is None, f"another user's transaction_id: {event.source}"
    return event_id


async def edit(alice, bob, room, message):
    replacement = {"m.new_content": {"msgtype": "m.text", "body": "edited"}}
    relation = {"rel_type": "m.replace", "event_id": message}
    edit_id = await alice.say(room, "* edited", **replacement, **{"m.relates_to": relation})
    event = await bob.until_event(room, edit_id, "the edit")
    assert event.source["content"]["m.relates_to"] == relation, event.source
    original = ok(await bob.client.room_get_event(room, message), RoomGetEventResponse).event
    bundled = original.source["unsigned"]["m.relations"]["m.replace"]
    assert bundled["event_id"] == edit_id, f"the original does not carry its edit: {original.source}"


async def react_and_redact(alice, bob, room, message):
    relation = {"rel_type": "m.annotation", "event_id": message, "key": "👍"}
    reaction_id = await bob.send(room, {"m.relates_to": relation}, kind="m.reaction")
    reaction = await alice.until_event(room, reaction_id, "the reaction")
    assert isinstance(reaction, ReactionEvent), reaction
    assert (reaction.reacts_to, reaction.key) == (message, "👍"), reaction.source
    related = [e.event_id async for e in alice.client.room_get_event_relations(room, message)]
    assert reaction_id in related, f"{reaction_id} is not among the relations {related}"

    redaction_id = ok(await bob.client.room_redact(room, reaction_id, reason="second thoughts"), RoomRedactResponse).event_id
    redaction = await alice.until_event(room, redaction_id, "the redaction")
    assert isinstance(redaction, RedactionEvent), redaction
    assert (redaction.redacts, redaction.reason) == (reaction_id, "second thoughts"), redaction.source
    source = ok(await alice.client.room_get_event(room, reaction_id), RoomGetEventResponse).event.source
    assert source["content"] == {}, f"redacted, but still has content: {source}"
    assert source["unsigned"]["redacted_because"]["event_id"] == redaction_id, source
    related = [e.event_id async for e in alice.client.room_get_event_relations(room, message)]
    assert reaction_id not in related, f"the redacted reaction is still related: {related}"


async def receipts(alice, bob, room, message):
    def reads(viewer, reader, kind):
        return viewer.receipts.get((room, reader.user_id, kind))

    ok(await bob.client.update_receipt_marker(room, message), UpdateReceiptMarkerResponse)
    for viewer in (alice, bob):
        await viewer.until("Bob's receipt", lambda v=viewer: reads(v, bob, ReceiptType.read) == message)
    newest = await alice.say(room, "read this")
    ok(await alice.client.update_receipt_marker(room, newest, ReceiptType.read_private), UpdateReceiptMarkerResponse)
    ok(await alice.client.update_receipt_marker(room, message), UpdateReceiptMarkerResponse)
    await alice.until("her private receipt", lambda: reads(alice, alice, ReceiptType.read_private) == newest)
    await bob.until("Alice's receipt", lambda: reads(bob, alice, ReceiptType.read) == message)
    assert reads(bob, alice, ReceiptType.read_private) is None, "a private receipt was shown to another user"


async def typing(alice, bob, room):
    ok(await bob.client.room_typing(room, True, timeout=60_000), RoomTypingResponse)
    await alice.until("Bob typing", lambda: alice.typing.get(room) == [bob.user_id])
    ok(await bob.client.room_typing(room, False), RoomTypingResponse)
    await alice.until("Bob no longer typing", lambda: alice.typing.get(room) == [])


async def profile(alice, bob, room):
    ok(await alice.client.set_displayname("Alice L."), ProfileSetDisplayNameResponse)
    await bob.until("the new name", lambda: bob.client.rooms[room].user_name(alice.user_id) == "Alice L.")
    answer = ok(await bob.client.get_displayname(alice.user_id), ProfileGetDisplayNameResponse)
    assert answer.displayname == "Alice L.", answer


async def burst(alice, bob, room):
    """Bob does not sync meanwhile: his next timeline is limited, and `prev_batch` has to lead to what it left out."""
    for number in range(BURST):
        await alice.say(room, f"burst {number}")
    wanted = [f"burst {number}" for number in range(BURST)]
    gaps = bob.gaps_filled
    await bob.until("the last of many", lambda: wanted[-1] in bob.texts(room, "burst "))
    assert bob.gaps_filled > gaps, f"{BURST} messages came in a timeline limited to {TIMELINE_LIMIT}"
    assert bob.texts(room, "burst ") == wanted, bob.texts(room, "burst ")


async def restart(server, alice, bob, room, how):
    """Alice writes and Bob waits in a long poll while the server goes away and comes back."""
    acknowledged = []

    async def write():
        for number in range(DURING_RESTART):
            acknowledged.append(await alice.say(room, f"{how.name} {number}"))

    async def end_and_start():
        while len(acknowledged) < DURING_RESTART // 4:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(server.stop, how)
        await asyncio.to_thread(server.start)

    async def read():
        last = f"{how.name} {DURING_RESTART - 1}"
        await bob.until("the last message after the restart", lambda: last in bob.texts(room, how.name))

    await asyncio.gather(write(), end_and_start(), read())
    wanted = [f"{how.name} {number}" for number in range(DURING_RESTART)]
    assert bob.texts(room, how.name) == wanted, f"after {how.name} Bob has {bob.texts(room, how.name)}"
    lost = [event_id for event_id in acknowledged if not bob.event(room, event_id)]
    assert not lost, f"acknowledged before {how.name}, gone after: {lost}"


async def carry_on(server, alice, bob, room):
    """A client that stored nothing but its tokens continues where it was."""
    await bob.client.close()
    event_id = await alice.say(room, "while Bob was away")
    again = bob.carry_on_as(server.url)
    await again.until_event(room, event_id, "what was said in between")
    answer = await again.say(room, "back again")
    await alice.until_event(room, answer, "Bob's answer")
    return again


async def all_of_history(server, alice, bob, room):
    """A new device of Bob's pages back to the creation of the room: complete, in order, once."""
    device = Person(server.url, "bob")
    ok(await device.client.login(PASSWORD, device_name="second"), LoginResponse)
    first = await device.sync(timeout=0)
    timeline = first.rooms.join[room].timeline
    assert timeline.limited and timeline.prev_batch, "the first sync of a long room is limited, with prev_batch"
    older = await device.history(room, timeline.prev_batch, MessageDirection.back, limit=7)
    whole = older[::-1] + timeline.events
    ids = [event.event_id for event in whole]
    assert len(set(ids)) == len(ids), "an event is twice in the history"
    assert isinstance(whole[0], RoomCreateEvent), f"the history does not begin with the creation: {whole[0].source}"
    await alice.until_event(room, ids[-1], "the newest event")
    synced = [event.event_id for event in alice.timelines[room]]
    assert ids == synced, difference("what Alice's client was sent", synced, "the history", ids)

    forwards = await device.history(room, timeline.prev_batch, MessageDirection.front, limit=20)
    forward_ids = [event.event_id for event in forwards]
    expected = ids[len(older) :]
    assert forward_ids == expected, difference("the timeline", expected, "the history forwards", forward_ids)
    await device.client.close()


def difference(name, wanted, other, found):
    missing = [event for event in wanted if event not in found]
    extra = [event for event in found if event not in wanted]
    return f"{other} is not {name}: missing {missing}, extra {extra}, same set {set(wanted) == set(found)}"


async def logout(alice):
    token = alice.client.access_token
    ok(await alice.client.logout(), LogoutResponse)
    alice.client.access_token = token
    refused = await alice.client.sync()
    assert ok(refused, SyncError).status_code == "M_UNKNOWN_TOKEN", refused


async def scenario(how):
    def step(name):
        print(f"  {time.monotonic() - started:6.2f} s  {name}", flush=True)

    started = time.monotonic()
    print(f"matrix-nio, restart with {how.name}")
    with Server() as server:
        alice, bob = [await register_and_login(server, name) for name in ("alice", "bob")]
        step("registered and logged in")
        room = await create_invite_join(alice, bob)
        step("created, invited, joined")
        message = await send_once(alice, bob, room)
        step("sent, once")
        await edit(alice, bob, room, message)
        step("edited")
        await react_and_redact(alice, bob, room, message)
        step("reacted and redacted")
        await receipts(alice, bob, room, message)
        step("receipts on both sides")
        await typing(alice, bob, room)
        step("typing")
        await profile(alice, bob, room)
        step("profile change")
        await burst(alice, bob, room)
        step(f"{BURST} messages in order, over a limited timeline")
        await restart(server, alice, bob, room, how)
        step(f"{how.name} and restart, nothing lost or repeated")
        bob = await carry_on(server, alice, bob, room)
        step("carried on from a stored token")
        await all_of_history(server, alice, bob, room)
        step("all of history, backwards and forwards")
        await encrypted_room(server)
        step("an encrypted room")
        await logout(alice)
        step("logged out")
        for person in (alice, bob):
            await person.client.close()


def main():
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    for how in (signal.SIGTERM, signal.SIGKILL):
        asyncio.run(scenario(how))
    print("matrix-nio: everything as it should be")


if __name__ == "__main__":
    sys.exit(main())

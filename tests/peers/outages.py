"""Servers that stop and come back, and networks that fall apart and heal."""

import signal

from encryption import to_device, to_device_from
from story import Stage, agree, refused, scenario
from waiting import eventually

# State resolution v1, v2 and v2.1, and what changed in between.
RESOLUTIONS = ["1", "2", "6", "10", "11", "12"]

# Of a long outage: how far somebody reads back, several times what comes by itself.
READ_BACK = 600
TO_DEVICES = 15


def ids_of(events):
    return [event["event_id"] for event in events]


def all_see(room, event_ids, *people):
    """Everybody's history has all the events."""
    for person in people:
        missing = lambda: set(event_ids) - set(ids_of(person.history(room)))
        eventually(lambda: not missing(), f"{person} has all {len(event_ids)} events", 90)


@scenario(["1", "6", "12"], alone=True)
def the_other_server_is_down(stage):
    """Messages that were sent meanwhile are there afterwards, and it goes on."""
    host, guest, room = stage.couple()
    stage.away.stop()
    sent = [host.send(room, f"while you were out {n}") for n in range(70)]
    host.set_state(room, "m.room.topic", {"topic": "changed meanwhile"})
    stage.away.start()
    stage.away.wait_until_ready()
    # That is a sign of life: nobody has to tell the server at home to try again.
    answer = guest.send(room, "I am back")
    host.sees(room, answer)
    guest.sees_state(room, "m.room.topic", {"topic": "changed meanwhile"})
    all_see(room, sent, guest)
    agree(room, host, guest)


@scenario(alone=True)
def a_long_outage(stage):
    """So much was said meanwhile that the newest comes first, and the rest when somebody reads back. Devices lack nothing."""
    host, guest, room = stage.couple()
    stage.away.stop()
    sent = []
    for n in range(stage.home.MANY):
        sent.append(host.send(room, f"while you were out {n}"))
        if n % 10 == 0 and n < 10 * TO_DEVICES:
            to_device(host, guest, n // 10)
    stage.away.start()
    stage.away.wait_until_ready()
    answer = guest.send(room, "I am back")
    host.sees(room, answer)
    last = host.send(room, "welcome")
    guest.sees(room, last)
    missed = sent[-READ_BACK:]
    seen = lambda: [event_id for event_id in ids_of(guest.history(room, READ_BACK + 100)) if event_id in set(missed)]
    eventually(lambda: len(set(seen())) == len(missed), f"the newest {len(missed)} of what was missed", 120)
    assert seen() == missed[::-1], "not once each, or not in the order in which they were sent"
    guest.wait(lambda: to_device_from(host, guest) == list(range(TO_DEVICES)), "the messages to its device, in order")
    agree(room, host, guest)


@scenario(["2", "10", "12"], alone=True)
def a_server_is_killed(stage):
    """What it has acknowledged is not lost, and reaches the others when it is back."""
    host, guest, room = stage.couple()
    stage.world.network.cut(stage.home, stage.away)
    sent = [host.send(room, f"just in time {n}") for n in range(10)]
    topic = host.set_state(room, "m.room.topic", {"topic": "just in time"})
    stage.home.stop(signal.SIGKILL)
    stage.world.network.heal()
    stage.home.start()
    stage.home.wait_until_ready()
    all_see(room, [*sent, topic], host)
    sent.append(host.send(room, "back again"))
    all_see(room, [*sent, topic], guest)
    agree(room, host, guest)


@scenario(["4", "12"], alone=True)
def a_new_signing_key(stage):
    """What is signed with it is believed, and so is what was signed with the old one, also by who comes later."""
    host, guest, room = stage.couple()
    before = host.send(room, "signed with the old key")
    guest.sees(room, before)
    stage.home.stop()
    stage.home.rotate_key()
    stage.home.start()
    stage.home.wait_until_ready()
    after = host.send(room, "signed with the new key")
    # A server may wait half a minute before it asks for the keys of another one again.
    guest.wait(lambda: after in guest.rooms[room].timeline, "what the new key has signed", 120)
    answer = guest.send(room, "I believe you")
    host.sees(room, answer)

    third = stage.world.third(stage.home, stage.away)
    late = Stage(stage.world, third, stage.away, stage.version).at_home("late")
    late.join(room, stage.away.name)
    all_see(room, [before, after, answer], late)
    agree(room, host, guest, late)


@scenario(RESOLUTIONS, alone=True)
def a_netsplit(stage):
    """Both sides change the same things while they cannot hear each other; afterwards they agree."""
    host, guest, room = stage.couple(name="before")
    bystander, victim = stage.at_home("bystander"), stage.at_away("victim")
    bystander.join(room)
    victim.join(room, stage.home.name)
    levels = host.state(room, "m.room.power_levels")
    levels = {**levels, "users": {**levels.get("users", {}), guest.user_id: 100}}
    host.set_state(room, "m.room.power_levels", levels)
    guest.sees_state(room, "m.room.power_levels", levels)
    host.sees_membership(room, victim, "join")
    guest.sees_membership(room, bystander, "join")

    stage.world.network.cut(stage.home, stage.away)
    host_said = [host.send(room, f"host {n}") for n in range(5)]
    guest_said = [guest.send(room, f"guest {n}") for n in range(5)]
    host.set_state(room, "m.room.name", {"name": "the host's"})
    guest.set_state(room, "m.room.name", {"name": "the guest's"})
    host.act("ban", room, victim.user_id)
    victim_said = victim.send(room, "nobody told me")
    guest.act("kick", room, bystander.user_id)
    bystander.set_state(room, "m.room.member", {"membership": "join", "displayname": "still here"}, bystander.user_id)
    host.set_state(room, "m.room.topic", {"topic": "the host's"})
    guest.set_state(room, "m.room.power_levels", {**levels, "events_default": 10})
    stage.world.network.heal()

    stage.home.hurry(stage.away)
    stage.away.hurry(stage.home)
    host_said.append(host.send(room, "do you hear me?"))
    guest_said.append(guest.send(room, "do you hear me?"))
    all_see(room, host_said + guest_said, host, guest)
    agree(room, host, guest)
    member = host.state(room, "m.room.member", victim.user_id)
    assert member["membership"] == "ban", member
    host_said.append(host.send(room, "and now?"))
    guest.sees(room, host_said[-1])
    agree(room, host, guest)
    # It came after the ban: allowed where it was said, soft-failed here.
    assert victim_said in ids_of(guest.history(room))
    assert victim_said not in ids_of(host.history(room))
    host.sees(room, host_said[-1])
    assert victim_said not in host.rooms[room].timeline
    refused(404, host.event, room, victim_said)


@scenario(["2", "6", "12"], alone=True)
def three_servers(stage):
    """One of three is cut off; the others go on, and so does it. Healed, all three agree."""
    third = stage.world.third(stage.home, stage.away)
    cut_off_and_healed(stage, third, third)


@scenario(["1", "10", "12"], alone=True)
def three_servers_without_the_second(stage):
    """The same, when another one is cut off."""
    cut_off_and_healed(stage, stage.world.third(stage.home, stage.away), stage.away)


def cut_off_and_healed(stage, third, cut_off):
    host, guest, room = stage.couple(name="three of us")
    lonely = Stage(stage.world, third, stage.home, stage.version).at_home("lonely")
    lonely.join(room, stage.home.name)
    host.sees_membership(room, lonely, "join")
    guest.sees_membership(room, lonely, "join")
    levels = host.state(room, "m.room.power_levels")
    levels = {**levels, "users": {**levels.get("users", {}), guest.user_id: 50, lonely.user_id: 50}}
    host.set_state(room, "m.room.power_levels", levels)
    for person in (guest, lonely):
        person.sees_state(room, "m.room.power_levels", levels)
        greeting = person.send(room, "hello")
        for other in {host, guest, lonely} - {person}:
            other.sees(room, greeting)

    stage.world.network.isolate(cut_off)
    connected = [person for person in (host, guest, lonely) if person.server is not cut_off]
    said = {person: [person.send(room, f"{person} {n}") for n in range(4)] for person in (host, guest, lonely)}
    connected[1].sees(room, *said[connected[0]])
    said = [event_id for events in said.values() for event_id in events]
    for person in (host, guest, lonely):
        said.append(person.set_state(room, "m.room.topic", {"topic": f"by {person.user_id}"}))
    stage.world.network.heal()

    for server in {stage.home, stage.away, third} - {cut_off}:
        server.hurry(cut_off)
        cut_off.hurry(server)
    said += [person.send(room, "all together") for person in (host, guest, lonely)]
    all_see(room, said, host, guest, lonely)
    agree(room, host, guest, lonely)
    last = lonely.send(room, "the last word")
    host.sees(room, last)
    guest.sees(room, last)

"""A room so large that who joins it is told of its members later (`omit_members`)."""

import secrets
from concurrent.futures import ThreadPoolExecutor

from quoting import quote
from story import Stage, agree, scenario
from waiting import eventually

# Of 100 state events and fewer, Myelin gives all at once.
BANNED = 130
JOINED = 10
# Far more than a join without members takes, far less than the members do.
BYTES_MAX = 60_000


@scenario(["6", "12"], alone=True)
def a_large_room(stage):
    """Usable, and known to whom what is said goes, before the members are there; who leaves meanwhile has left."""
    host, third = stage.at_home(), stage.world.third(stage.home, stage.away)
    room = host.create_room(stage.version, name="many of us")
    members = [stage.at_home("member") for _ in range(JOINED)]
    for member in members:
        member.join(room)
    for n in range(BANNED):
        reason = {"user_id": f"@spam-{n}:elsewhere.test", "reason": secrets.token_hex(500)}
        host.call("POST", f"/v3/rooms/{quote(room)}/ban", reason)
    elsewhere = Stage(stage.world, third, stage.home, stage.version).at_home("elsewhere")
    elsewhere.join(room, stage.home.name)
    host.sees_membership(room, elsewhere, "join")

    guest = stage.at_away()
    guest.lazy = True
    stage.world.network.hold_back(stage.home, stage.away, BYTES_MAX)
    guest.join(room, stage.home.name)
    host.sees_membership(room, guest, "join")
    elsewhere.sees_membership(room, guest, "join")
    with ThreadPoolExecutor() as pool:
        everybody = pool.submit(guest.joined_members, room)
        message = host.send(room, "can you hear me?")
        guest.sees(room, message)
        answer = guest.send(room, "yes, whoever you are")
        host.sees(room, answer)
        # Nobody has told this server but the answer to the join.
        elsewhere.sees(room, answer)
        members[0].act("leave", room)
        host.sees_membership(room, members[0], "leave")
        assert not everybody.done(), f"all members are known already: {everybody.result()}"
        stage.world.network.heal()
        everybody.result()

    joined = {person.user_id for person in (host, guest, elsewhere, *members[1:])}
    for person in (host, guest, elsewhere):
        eventually(lambda: person.joined_members(room) == joined, f"the members that are left, at {person}")
    last = members[1].send(room, "I was there all the time")
    guest.sees(room, last)
    last = guest.send(room, "now I see you")
    members[1].sees(room, last)
    elsewhere.sees(room, last)
    agree(room, host, guest, elsewhere)

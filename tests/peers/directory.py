"""What one looks up at another server: aliases, room lists, profiles."""

from quoting import quote

from story import refused, scenario
from waiting import eventually


@scenario()
def aliases_and_the_room_list(stage):
    host, guest = stage.at_home(), stage.at_away()
    name = f"alias-{host.user_id[1:].split(':')[0]}"
    room = host.create_room(stage.version, name=f"listed {name}", room_alias_name=name, visibility="public")
    alias = f"#{name}:{stage.home.name}"
    found = guest.call("GET", f"/v3/directory/room/{quote(alias)}")
    assert found["room_id"] == room and stage.home.name in found["servers"], found
    refused(404, guest.call, "GET", f"/v3/directory/room/{quote('#nobody:' + stage.home.name)}")

    def listed():
        listed = guest.call("GET", "/v3/publicRooms", server=stage.home.name)["chunk"]
        return room in [entry["room_id"] for entry in listed]

    eventually(listed, "the room in the list of its server")
    query = {"filter": {"generic_search_term": name}, "limit": 5}
    found = guest.call("POST", "/v3/publicRooms", query, server=stage.home.name)["chunk"]
    assert [entry["room_id"] for entry in found] == [room], found
    assert found[0]["name"] == f"listed {name}" and found[0]["canonical_alias"] == alias, found

    assert guest.join(alias) == room
    host.sees_membership(room, guest, "join")


@scenario()
def profiles(stage):
    host, guest, room = stage.couple()
    host.call("PUT", f"/v3/profile/{quote(host.user_id)}/displayname", {"displayname": "The Host"})
    profile = lambda: guest.call("GET", f"/v3/profile/{quote(host.user_id)}").get("displayname") == "The Host"
    eventually(profile, "the profile")
    member = lambda: guest.rooms[room].state.get(("m.room.member", host.user_id), {}).get("content", {}).get("displayname")
    guest.wait(lambda: member() == "The Host", "the new name in the room")
    picture = f"mxc://{stage.home.name}/picture"
    host.call("PUT", f"/v3/profile/{quote(host.user_id)}/avatar_url", {"avatar_url": picture})
    member = lambda: guest.rooms[room].state["m.room.member", host.user_id]["content"].get("avatar_url")
    guest.wait(lambda: member() == picture, "the new picture in the room")
    expected = {"displayname": "The Host", "avatar_url": picture}
    whole = lambda: expected.items() <= guest.call("GET", f"/v3/profile/{quote(host.user_id)}").items()
    eventually(whole, "the profile with name and picture")

    host.call("PUT", f"/v3/profile/{quote(host.user_id)}/m.tz", {"m.tz": "Europe/Berlin"})
    zone = lambda: guest.call("GET", f"/v3/profile/{quote(host.user_id)}").get("m.tz") == "Europe/Berlin"
    eventually(zone, "the time zone")
    assert guest.call("GET", f"/v3/profile/{quote(host.user_id)}/m.tz") == {"m.tz": "Europe/Berlin"}
    refused(404, guest.call, "GET", f"/v3/profile/{quote('@nobody:' + stage.home.name)}")

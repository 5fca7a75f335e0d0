"""What is true now and not kept: typing, receipts, presence."""

from quoting import quote

from story import scenario


def types(person, room, typing):
    body = {"typing": typing, **({"timeout": 30_000} if typing else {})}
    person.call("PUT", f"/v3/rooms/{quote(room)}/typing/{quote(person.user_id)}", body)


@scenario()
def typing(stage):
    host, guest, room = stage.couple()
    for writer, reader in [(host, guest), (guest, host)]:
        # Who has heard something from the other side knows that it is in the room.
        reader.sees(room, writer.send(room, "I have something to say"))
        types(writer, room, True)
        reader.wait(lambda: writer.user_id in reader.rooms[room].typing, f"{writer} typing")
        types(writer, room, False)
        reader.wait(lambda: writer.user_id not in reader.rooms[room].typing, f"{writer} no longer typing")


@scenario()
def receipts(stage):
    host, guest, room = stage.couple()
    for writer, reader in [(host, guest), (guest, host)]:
        message = writer.send(room, "read this")
        reader.sees(room, message)
        reader.call("POST", f"/v3/rooms/{quote(room)}/receipt/m.read/{quote(message)}")
        writer.wait(lambda: writer.rooms[room].receipts.get(reader.user_id) == message, "the receipt")


@scenario()
def presence(stage):
    host, guest, _ = stage.couple()
    for person, other in [(host, guest), (guest, host)]:
        status = {"presence": "online", "status_msg": f"here is {person.user_id}"}
        person.call("PUT", f"/v3/presence/{quote(person.user_id)}/status", status)
        seen = lambda: other.presence.get(person.user_id, {})
        other.wait(lambda: seen().get("status_msg") == status["status_msg"], f"the presence of {person}")
        assert seen()["presence"] == "online", seen()

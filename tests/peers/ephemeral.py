"""What is true now and not kept: typing, receipts, presence."""

from quoting import quote

from story import scenario


def types(person, room, typing, timeout_ms=30_000):
    body = {"typing": typing, **({"timeout": timeout_ms} if typing else {})}
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
def typing_that_is_given_up(stage):
    """Nobody says that it has ended: the server of who typed notices."""
    host, guest, room = stage.couple()
    for writer, reader in [(host, guest), (guest, host)]:
        reader.sees(room, writer.send(room, "I have something to say"))
        types(writer, room, True, timeout_ms=6_000)
        reader.wait(lambda: writer.user_id in reader.rooms[room].typing, f"{writer} typing")
        reader.wait(lambda: writer.user_id not in reader.rooms[room].typing, f"{writer} no longer typing", 30)


def reads(person, room, event_id, kind="m.read", **body):
    person.call("POST", f"/v3/rooms/{quote(room)}/receipt/{kind}/{quote(event_id)}", body)


@scenario()
def receipts(stage):
    host, guest, room = stage.couple()
    for writer, reader in [(host, guest), (guest, host)]:
        message = writer.send(room, "read this")
        reader.sees(room, message)
        reads(reader, room, message)
        writer.wait(lambda: writer.rooms[room].receipts.get((reader.user_id, "")) == message, "the receipt")


@scenario()
def receipts_in_threads_and_private_ones(stage):
    """Each thread has its own; who reads in private is not told of."""
    host, guest, room = stage.couple()
    for writer, reader in [(host, guest), (guest, host)]:
        root = writer.send(room, "a thread begins")
        reply = {"msgtype": "m.text", "body": "in it", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
        inside, last = writer.send(room, reply), writer.send(room, "beside it")
        reader.sees(room, root, inside, last)
        reads(reader, room, last, "m.read.private")
        reads(reader, room, inside, thread_id=root)
        reads(reader, room, root, thread_id="main")
        receipt = lambda thread_id: writer.rooms[room].receipts.get((reader.user_id, thread_id))
        writer.wait(lambda: receipt(root) == inside and receipt("main") == root, "both receipts")
        assert (reader.user_id, "m.read.private") not in writer.rooms[room].receipt_types
        assert last not in writer.rooms[room].receipts.values()


@scenario()
def presence(stage):
    host, guest, _ = stage.couple()
    for person, other in [(host, guest), (guest, host)]:
        status = {"presence": "online", "status_msg": f"here is {person.user_id}"}
        person.call("PUT", f"/v3/presence/{quote(person.user_id)}/status", status)
        seen = lambda: other.presence.get(person.user_id, {})
        other.wait(lambda: seen().get("status_msg") == status["status_msg"], f"the presence of {person}")
        assert seen()["presence"] == "online", seen()

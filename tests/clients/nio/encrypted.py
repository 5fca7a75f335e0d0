"""An encrypted room: device keys, one-time keys and to-device messages, as matrix-nio uses them."""

import tempfile
import time

from nio import AsyncClient, AsyncClientConfig, EnableEncryptionBuilder, MegolmEvent, RoomMessageText
from nio.responses import JoinResponse, LoginResponse, RegisterResponse, RoomCreateResponse, RoomSendResponse
from person import WAIT_SECONDS_MAX, ok

PASSWORD = "correct horse battery staple"


async def newcomer(server, name, store):
    config = AsyncClientConfig(encryption_enabled=True, request_timeout=30)
    client = AsyncClient(server.url, name, store_path=store, config=config)
    ok(await client.register(name, PASSWORD), RegisterResponse)
    await client.close()
    client = AsyncClient(server.url, name, store_path=store, config=config)
    ok(await client.login(PASSWORD, device_name="encrypted nio"), LoginResponse)
    await sync(client, timeout=0)
    return client


async def sync(client, timeout=2000):
    """A sync, and what is to be done about keys after it."""
    response = await client.sync(timeout=timeout)
    assert hasattr(response, "next_batch"), f"/sync failed: {response}"
    if client.should_upload_keys:
        await client.keys_upload()
    if client.should_query_keys:
        await client.keys_query()
    if client.should_claim_keys:
        await client.keys_claim(client.get_users_for_key_claiming())
    await client.send_to_device_messages()
    return response


async def until_read(client, room, body):
    """Syncs until the message has come and was decrypted."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        response = await sync(client)
        joined = response.rooms.join.get(room)
        for event in joined.timeline.events if joined else []:
            assert not isinstance(event, MegolmEvent), f"{client.user_id} cannot read {event}"
            if isinstance(event, RoomMessageText) and event.body == body:
                assert event.decrypted, "it was not encrypted"
                return
    raise AssertionError(f"{client.user_id} waited for {body!r}")


async def encrypted_room(server):
    with tempfile.TemporaryDirectory() as store:
        carol, dave = [await newcomer(server, name, store) for name in ("carol", "dave")]
        created = await carol.room_create(invite=[dave.user_id], initial_state=[EnableEncryptionBuilder().as_dict()])
        room = ok(created, RoomCreateResponse).room_id
        await sync(dave)
        ok(await dave.join(room), JoinResponse)
        for client in (carol, dave):
            while not (room in client.rooms and client.rooms[room].encrypted and len(client.rooms[room].users) == 2):
                await sync(client)
        for sender, reader, body in ((carol, dave, "secret"), (dave, carol, "more secret"), (carol, dave, "last secret")):
            content = {"msgtype": "m.text", "body": body}
            sent = await sender.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
            ok(sent, RoomSendResponse)
            await until_read(reader, room, body)
        for client in (carol, dave):
            await client.close()

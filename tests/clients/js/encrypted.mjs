// An encrypted room between two cross-signed users, with the Rust cryptography of matrix-js-sdk.

import { Person } from "./person.mjs";
import { assert, assertSame } from "./wait.mjs";

const PASSWORD = "correct horse battery staple";

async function newcomer(server, name) {
    const person = new Person(server.url, name);
    const account = { username: name, password: PASSWORD, inhibit_login: true, auth: { type: "m.login.dummy" } };
    await person.client.registerRequest(account);
    await person.login(PASSWORD, "encrypted js");
    await person.client.initRustCrypto({ useIndexedDB: false });
    await person.start();
    // The first keys of a user need no password.
    await person.client.getCrypto().bootstrapCrossSigning({
        authUploadDeviceSigningKeys: (makeRequest) => makeRequest(null),
    });
    return person;
}

async function say(sender, reader, room, body) {
    const { event_id: id } = await sender.client.sendTextMessage(room, body);
    const event = await reader.until(`'${body}' decrypted`, () => {
        const found = reader.room(room).findEventById(id);
        return found?.getContent().body === body ? found : undefined;
    });
    assertSame([event.isEncrypted(), event.getWireType()], [true, "m.room.encrypted"], "the message on the wire");
}

export async function encryptedRoom(server) {
    const [carol, dave] = [await newcomer(server, "carol"), await newcomer(server, "dave")];
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const { room_id: room } = await carol.client.createRoom({ invite: [dave.id], initial_state: [encryption] });
    await dave.until("the invite", () => dave.room(room)?.getMyMembership() === "invite");
    await dave.client.joinRoom(room);
    await dave.until("the joined room", () => dave.room(room).getMyMembership() === "join");
    await carol.until("Dave's join", () => carol.room(room)?.getMember(dave.id)?.membership === "join");
    await say(carol, dave, room, "secret");
    await say(dave, carol, room, "more secret");
    const crypto = carol.client.getCrypto();
    assert(await crypto.isCrossSigningReady(), "carol is not cross-signed");
    await carol.until("Dave's device, signed by Dave", async () => {
        const devices = await crypto.getUserDeviceInfo([dave.id], true);
        const [device] = devices.get(dave.id)?.keys() ?? [];
        return device && (await crypto.getDeviceVerificationStatus(dave.id, device))?.signedByOwner;
    });
    for (const person of [carol, dave]) {
        person.stop();
        assert(!person.failure, `${person.name}: ${person.failure}`);
    }
}

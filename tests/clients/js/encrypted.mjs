// End-to-end encryption with the Rust cryptography of matrix-js-sdk: two users who are cross-signed, keep their secrets on
// the server and back up their keys; a second device that is verified and reads what was said before it existed; two
// users who compare emoji; edits in a thread.

import { CryptoEvent, VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { Person } from "./person.mjs";
import { assert, assertSame } from "./wait.mjs";

const PASSWORD = "correct horse battery staple";
const SAS = "m.sas.v1";

async function newcomer(server, name) {
    const person = new Person(server.url, name);
    const account = { username: name, password: PASSWORD, inhibit_login: true, auth: { type: "m.login.dummy" } };
    await person.client.registerRequest(account);
    await device(person, "encrypted js");
    const crypto = person.client.getCrypto();
    // The first keys of a user need no password.
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (makeRequest) => makeRequest(null) });
    await crypto.bootstrapSecretStorage({
        createSecretStorageKey: () => crypto.createRecoveryKeyFromPassphrase(),
        setupNewSecretStorage: true,
        setupNewKeyBackup: true,
    });
    assert(await crypto.isCrossSigningReady(), `${name} is not cross-signed`);
    assert(await crypto.isSecretStorageReady(), `the secrets of ${name} are not on the server`);
    assert(await crypto.checkKeyBackupAndEnable(), `${name} has no key backup`);
    return person;
}

async function device(person, name) {
    await person.login(PASSWORD, name);
    await person.client.initRustCrypto({ useIndexedDB: false });
    await person.start();
}

async function say(sender, reader, room, body, relation = {}) {
    const content = { msgtype: "m.text", body, ...relation };
    const { event_id: id } = await sender.client.sendEvent(room, "m.room.message", content);
    await reads(reader, room, id, body);
    return id;
}

async function reads(reader, room, id, body) {
    const event = await reader.until(`'${body}' decrypted`, () => {
        const found = reader.event(room, id);
        return found?.getContent().body === body ? found : undefined;
    });
    assertSame([event.isEncrypted(), event.getWireType()], [true, "m.room.encrypted"], "the message on the wire");
}

async function roomOf(carol, dave) {
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const { room_id: room } = await carol.client.createRoom({ invite: [dave.id], initial_state: [encryption] });
    await dave.until("the invite", () => dave.room(room)?.getMyMembership() === "invite");
    await dave.client.joinRoom(room);
    await dave.until("the joined room", () => dave.room(room).getMyMembership() === "join");
    await carol.until("Dave's join", () => carol.room(room)?.getMember(dave.id)?.membership === "join");
    return room;
}

/** Both sides go through the emoji: whoever asked starts, both see the same and confirm. */
async function compareEmoji(asking, request, answering, incoming) {
    await incoming.accept();
    await asking.until("the request to be accepted", () => request.phase === VerificationPhase.Ready);
    const verifier = await request.startVerification(SAS);
    await answering.until("the emoji to be on their way", () => incoming.verifier);
    const seen = await Promise.all([emoji(asking, verifier), emoji(answering, incoming.verifier)]);
    assertSame(seen[0].names, seen[1].names, "the emoji on both sides");
    assertSame(seen[0].names.length, 7, "how many emoji there are");
    await Promise.all(seen.map(({ confirm }) => confirm()));
    await Promise.all(seen.map(({ done }) => done));
    for (const { phase } of [request, incoming]) assertSame(phase, VerificationPhase.Done, "the end of the verification");
}

async function emoji(person, verifier) {
    const done = verifier.verify();
    let sas;
    verifier.on(VerifierEvent.ShowSas, (shown) => (sas = shown));
    await person.until("emoji to compare", () => (sas ??= verifier.getShowSasCallbacks() ?? undefined));
    return { names: sas.sas.emoji.map(([, name]) => name), confirm: () => sas.confirm(), done };
}

function nextRequest(person) {
    let request;
    person.client.once(CryptoEvent.VerificationRequestReceived, (received) => (request = received));
    return async () => {
        try {
            return await person.until("a request to verify", () => request);
        } catch (error) {
            throw new Error(`${error.message}; what came: ${person.wireDevices}`);
        }
    };
}

/** A client drops what a device asks for that it does not know yet; to hear of the device and to fetch its keys takes time. */
async function knowsDevice(person, other) {
    const crypto = person.client.getCrypto();
    await person.until(`the keys of ${other.name}'s device`, async () => {
        const devices = await crypto.getUserDeviceInfo([other.id]);
        return devices.get(other.id)?.has(other.client.getDeviceId());
    });
}

async function verifyEachOther(carol, dave, room) {
    await knowsDevice(dave, carol);
    const incoming = nextRequest(dave);
    const request = await carol.client.getCrypto().requestVerificationDM(dave.id, room);
    await compareEmoji(carol, request, dave, await incoming());
    for (const [one, other] of [[carol, dave], [dave, carol]]) {
        await one.until(`${other.name} verified`, async () =>
            (await one.client.getCrypto().getUserVerificationStatus(other.id)).isCrossSigningVerified(),
        );
    }
}

/** A second device is verified by the first, gets the key of the backup from it, and reads what was said before. */
async function secondDevice(server, carol, room, earlier) {
    await carol.until("all keys to be backed up", async () => {
        // Her own session of the room, and Dave's.
        return (await carol.client.http.authedRequest("GET", "/room_keys/version")).count >= 2;
    });
    const second = new Person(server.url, carol.name);
    const incoming = nextRequest(carol);
    await device(second, "second encrypted js");
    await knowsDevice(carol, second);
    await knowsDevice(second, carol);
    const request = await second.client.getCrypto().requestOwnUserVerification();
    await compareEmoji(second, request, carol, await incoming());
    const crypto = second.client.getCrypto();
    await second.until("the secrets of the first device", () => crypto.isCrossSigningReady());
    await second.until("the key of the backup", () => crypto.getSessionBackupPrivateKey());
    await crypto.checkKeyBackupAndEnable();
    const { imported, total } = await crypto.restoreKeyBackup();
    assert(imported >= 1 && imported === total, `${imported} of ${total} keys restored`);
    await reads(second, room, earlier.id, earlier.body);
    return second;
}

async function editsInThread(carol, dave, room, root) {
    // As Element does: the thread is opened before something is said in it. The library adds the relation to it.
    dave.room(room).createThread(root, dave.event(room, root), [], true);
    const inThread = (content) => dave.client.sendEvent(room, root, "m.room.message", { msgtype: "m.text", ...content });
    const { event_id: reply } = await inThread({ body: "in the thread" });
    const thread = await carol.until("the thread", () => carol.room(room).getThread(root));
    await carol.until("the reply", () => thread.findEventById(reply)?.getContent().body === "in the thread");
    await inThread({
        body: "* edited in the thread",
        "m.new_content": { msgtype: "m.text", body: "edited in the thread" },
        "m.relates_to": { rel_type: "m.replace", event_id: reply },
    });
    await carol.until("the edit", () => thread.findEventById(reply)?.getContent().body === "edited in the thread");
}

async function signedDevices(carol, dave) {
    const crypto = carol.client.getCrypto();
    await carol.until("Dave's device, signed by Dave", async () => {
        const devices = await crypto.getUserDeviceInfo([dave.id], true);
        const [device] = devices.get(dave.id)?.keys() ?? [];
        return device && (await crypto.getDeviceVerificationStatus(dave.id, device))?.signedByOwner;
    });
}

/** Carol at `server`, Dave at `other`. */
export async function encryptedRoom(server, other = server) {
    const [carol, dave] = [await newcomer(server, "carol"), await newcomer(other, "dave")];
    const room = await roomOf(carol, dave);
    const id = await say(carol, dave, room, "secret");
    await say(dave, carol, room, "more secret");
    await signedDevices(carol, dave);
    await verifyEachOther(carol, dave, room);
    await editsInThread(carol, dave, room, id);
    const second = await secondDevice(server, carol, room, { id, body: "secret" });
    await say(dave, second, room, "for both devices");
    for (const person of [carol, dave, second]) {
        person.stop();
        assert(!person.failure, `${person.name}: ${person.failure}`);
    }
}

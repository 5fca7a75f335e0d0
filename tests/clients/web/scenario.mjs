// Two people use Element, each in a browser of their own, against one Myelin: they register and log in, talk in an
// encrypted room, show each other pictures, and come back after a reload. Screenshots stay as artefacts of the run.

import { Person } from "./person.mjs";
import { serve } from "./pages.mjs";
import { picture } from "./picture.mjs";
import { Server } from "./server.mjs";
import { assert, assertSame } from "./wait.mjs";

const PASSWORD = "correct horse battery staple";

async function registerByHand(server, name) {
    const account = { username: name, password: PASSWORD, inhibit_login: true, auth: { type: "m.login.dummy" } };
    const url = `${server.url}/_matrix/client/v3/register`;
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(account) });
    assert(answer.ok, `registration of ${name}: ${answer.status} ${await answer.text()}`);
}

/** The types on the wire of what was said in the open room, as the server hands them out. */
function wireTypes(person) {
    return person.ask(async () => {
        const client = window.mxMatrixClientPeg.get();
        const room = window.mxRoomViewStore?.getRoomId() ?? location.hash.replace(/^#\/room\//, "");
        const { chunk } = await client.http.authedRequest("GET", `/rooms/${encodeURIComponent(room)}/messages`, { dir: "b", limit: "20" });
        return chunk.filter((event) => event.state_key === undefined).map((event) => event.type);
    });
}

async function encryptedRoom(alice, bob) {
    await alice.createRoom("Secret", { encrypted: true });
    await alice.invite(bob);
    await bob.acceptInvite("Secret");
    await alice.say("Can you read this?");
    await bob.sees("Can you read this?");
    await bob.say("Yes, and nobody else can.");
    await alice.sees("Yes, and nobody else can.");
    const types = await wireTypes(alice);
    assert(types.length > 0 && types.every((type) => type === "m.room.encrypted"), `in the clear: ${types}`);
    await alice.upload(picture(640, 480));
    for (const person of [alice, bob]) {
        await person.seesPictures(1);
        await person.screenshot("encrypted-room");
    }
}

async function roomWithThumbnail(alice, bob) {
    await alice.createRoom("Pictures", { encrypted: false });
    await alice.invite(bob);
    await bob.acceptInvite("Pictures");
    await alice.say("In the clear");
    await bob.sees("In the clear");
    // Larger than Element shows it, so it asks the server for a thumbnail.
    await alice.upload(picture(2400, 1800));
    for (const person of [alice, bob]) {
        const address = await person.seesPictures(1);
        assert(address.includes("/thumbnail/"), `no thumbnail: ${address}`);
        await person.screenshot("thumbnail");
    }
}

async function reload(alice) {
    const device = () => alice.ask(() => window.mxMatrixClientPeg.get().getDeviceId());
    const before = await device();
    await alice.reload();
    assertSame(await device(), before, "the device after a reload");
    await alice.openRoom("Secret");
    await alice.sees("Yes, and nobody else can.");
    await alice.say("Still here");
    await alice.screenshot("reloaded");
}

const server = await Server.start();
const pages = await serve(process.env.ELEMENT);
const [alice, bob] = [await Person.at(pages, server, "alice"), await Person.at(pages, server, "bob")];
try {
    await alice.register(PASSWORD);
    await registerByHand(server, "bob");
    await bob.login(PASSWORD);
    await encryptedRoom(alice, bob);
    await roomWithThumbnail(alice, bob);
    await reload(alice);
    await bob.openRoom("Secret");
    await bob.sees("Still here");
    for (const person of [alice, bob]) await person.close();
    console.log("Element in Chromium: two people, an encrypted room, pictures, a reload");
} catch (error) {
    for (const person of [alice, bob]) await person.screenshot("failed").catch(() => {});
    console.error(server.lastLines());
    throw error;
} finally {
    for (const person of [alice, bob]) await person.browser.close();
    pages.close();
    await server.remove();
}

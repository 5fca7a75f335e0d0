// Two people at matrix-js-sdk talk through Myelin; in the middle the server is ended, once with SIGTERM and once with
// SIGKILL.

import { Direction, EventType, MsgType, ReceiptType, RelationType } from "matrix-js-sdk";
import { encryptedRoom } from "./encrypted.mjs";
import { Person } from "./person.mjs";
import { Server } from "./server.mjs";
import { assert, assertSame, assertSameList, rejection, until } from "./wait.mjs";

const PASSWORD = "correct horse battery staple";
const BURST = 60;
const DURING_RESTART = 24;

async function registerAndLogin(server, name) {
    const person = new Person(server.url, name);
    const account = { username: name, password: PASSWORD, inhibit_login: true };
    const challenge = await rejection(person.client.registerRequest(account), "registration without authentication");
    assertSame(challenge.httpStatus, 401, "status of the challenge");
    const { session, flows } = challenge.data;
    const dummy = flows.some((flow) => flow.stages.length === 1 && flow.stages[0] === "m.login.dummy");
    assert(dummy && session, `no dummy stage: ${JSON.stringify(challenge.data)}`);
    await person.client.registerRequest({ ...account, auth: { type: "m.login.dummy", session } });
    const taken = await rejection(person.client.registerRequest(account), "registration of a taken name");
    assertSame(taken.errcode, "M_USER_IN_USE", "a taken name");

    const wrong = await rejection(person.login(`not ${PASSWORD}`, "wrong"), "login with a wrong password");
    assertSame([wrong.httpStatus, wrong.errcode], [403, "M_FORBIDDEN"], "a wrong password");
    await person.login(PASSWORD, "js");
    const who = await person.client.whoami();
    assertSame([who.user_id, who.device_id], [`@${name}:localhost`, person.client.getDeviceId()], "whoami");
    await person.start();
    return person;
}

async function createInviteJoin(alice, bob) {
    const { room_id: room } = await alice.client.createRoom({ name: "Two people", topic: "chat", preset: "private_chat" });
    await alice.until("her new room", () => alice.room(room)?.getMyMembership() === "join");
    await alice.client.invite(room, bob.id);
    await bob.until("the invite", () => bob.room(room)?.getMyMembership() === "invite");
    assertSame(bob.room(room).name, "Two people", "the name in the invite");
    assertSame(bob.room(room).getMember(bob.id).events.member.getSender(), alice.id, "the inviter");

    await bob.client.joinRoom(room);
    await bob.until("the joined room", () => bob.room(room).getMyMembership() === "join" && bob.wire.has(room));
    await alice.until("Bob's join", () => alice.room(room).getMember(bob.id)?.membership === "join");
    await bob.room(room).loadMembersIfNeeded();
    const members = bob.room(room).getJoinedMembers().map((member) => member.userId);
    assertSame(members.sort(), [alice.id, bob.id], "the members that Bob sees");
    return room;
}

async function sendOnce(alice, bob, room) {
    const { event_id: id } = await alice.client.sendTextMessage(room, "hello", "the same");
    const path = `/rooms/${encodeURIComponent(room)}/send/m.room.message/${encodeURIComponent("the same")}`;
    const content = { msgtype: MsgType.Text, body: "hello" };
    const again = await alice.client.http.authedRequest("PUT", path, undefined, content);
    assertSame(again.event_id, id, "the event of the same transaction id");
    const event = await bob.untilEvent(room, id, "a message");
    assertSame([event.getContent().body, event.getSender()], ["hello", alice.id], "the message");
    const own = await alice.untilEvent(room, id, "her own message");
    assertSame(own.getUnsigned().transaction_id, "the same", "transaction_id for the sending device");
    assertSame(event.getUnsigned().transaction_id, undefined, "transaction_id for others");
    return id;
}

async function edit(alice, bob, room, message) {
    const { event_id: id } = await alice.client.sendEvent(room, EventType.RoomMessage, {
        "msgtype": MsgType.Text,
        "body": "* edited",
        "m.new_content": { msgtype: MsgType.Text, body: "edited" },
        "m.relates_to": { rel_type: RelationType.Replace, event_id: message },
    });
    await bob.until("the edit", () => bob.event(room, message)?.replacingEventId() === id);
    assertSame(bob.event(room, message).getContent().body, "edited", "the edited body");
    const original = await bob.client.fetchRoomEvent(room, message);
    const bundled = original.unsigned?.["m.relations"]?.["m.replace"];
    assertSame(bundled?.event_id, id, "the edit bundled with the original");
}

async function reactAndRedact(alice, bob, room, message) {
    const { event_id: id } = await bob.client.sendEvent(room, EventType.Reaction, {
        "m.relates_to": { rel_type: RelationType.Annotation, event_id: message, key: "👍" },
    });
    const reactions = () =>
        alice.room(room).relations.getChildEventsForEvent(message, RelationType.Annotation, EventType.Reaction);
    await alice.until("the reaction", () => reactions()?.getSortedAnnotationsByKey()?.[0]?.[0] === "👍");
    assertSame(reactions().getRelations()[0].getId(), id, "the reaction");

    await bob.client.redactEvent(room, id, undefined, { reason: "second thoughts" });
    await alice.until("the redaction", () => alice.event(room, id)?.isRedacted());
    const redacted = await alice.client.fetchRoomEvent(room, id);
    assertSame(redacted.content, {}, "the content of the redacted reaction");
    assertSame(redacted.unsigned.redacted_because.content.reason, "second thoughts", "the reason");
    assertSame(reactions()?.getRelations() ?? [], [], "reactions after the redaction");
    const { chunk } = await alice.client.fetchRelations(room, message, RelationType.Annotation, EventType.Reaction);
    assertSame(chunk, [], "related reactions on the server");
}

async function receipts(alice, bob, room, message) {
    const received = (viewer, reader, event, kind) =>
        viewer.wireReceipts.some((content) => content[event]?.[kind]?.[reader.id] !== undefined);
    const say = async (person, other, body) => {
        const { event_id: id } = await person.client.sendTextMessage(room, body);
        await person.untilEvent(room, id, "the own message");
        return other.untilEvent(room, id, "the message to read");
    };
    // A client counts who writes as having read, so each reads what the other wrote last.
    const first = await say(alice, bob, "read this");
    await bob.client.sendReadReceipt(first);
    await alice.until("Bob's receipt", () => alice.room(room).getEventReadUpTo(bob.id) === first.getId());
    await bob.until("his own receipt", () => received(bob, bob, first.getId(), ReceiptType.Read));

    const second = await say(bob, alice, "and this");
    await alice.client.sendReadReceipt(second, ReceiptType.ReadPrivate);
    await alice.client.sendReadReceipt(alice.event(room, message));
    await alice.until("her private receipt", () => received(alice, alice, second.getId(), ReceiptType.ReadPrivate));
    await bob.until("Alice's receipt", () => received(bob, alice, message, ReceiptType.Read));
    const shown = received(bob, alice, second.getId(), ReceiptType.ReadPrivate);
    assert(!shown, "a private receipt was shown to another user");
}

async function typing(alice, bob, room) {
    await bob.client.sendTyping(room, true, 60_000);
    await alice.until("Bob typing", () => alice.room(room).getMember(bob.id).typing);
    await bob.client.sendTyping(room, false, 0);
    await alice.until("Bob no longer typing", () => !alice.room(room).getMember(bob.id).typing);
}

async function profile(alice, bob, room) {
    await alice.client.setDisplayName("Alice L.");
    await bob.until("the new name", () => bob.room(room).getMember(alice.id)?.rawDisplayName === "Alice L.");
    assertSame((await bob.client.getProfileInfo(alice.id)).displayname, "Alice L.", "the profile");
}

async function burst(alice, bob, room) {
    const wanted = Array.from({ length: BURST }, (_, number) => `burst ${number}`);
    for (const body of wanted) await alice.client.sendTextMessage(room, body);
    await bob.until("the last of many", () => bob.texts(room, "burst ").includes(wanted.at(-1)));
    assertSameList(bob.texts(room, "burst "), wanted, "many messages");
}

// As a user does it who sees "not sent": the same event once more, so with the same transaction id.
async function sayAndRetry(person, server, room, body) {
    try {
        return (await person.client.sendTextMessage(room, body)).event_id;
    } catch (error) {
        assert(error.name === "ConnectionError", `sending '${body}' failed: ${error}`);
    }
    const event = person.room(room).getPendingEvents().find((pending) => pending.getContent().body === body);
    for (;;) {
        await until("the server to be back", () => server.isReady());
        try {
            return (await person.client.resendEvent(event, person.room(room))).event_id;
        } catch (error) {
            assert(error.name === "ConnectionError", `sending '${body}' again failed: ${error}`);
        }
    }
}

async function restart(server, alice, bob, room, signal) {
    const wanted = Array.from({ length: DURING_RESTART }, (_, number) => `${signal} ${number}`);
    const acknowledged = [];
    const write = async () => {
        for (const body of wanted) acknowledged.push(await sayAndRetry(alice, server, room, body));
    };
    const endAndStart = async () => {
        await until("some messages", () => acknowledged.length >= DURING_RESTART / 4);
        await server.stop(signal);
        await server.start();
    };
    await Promise.all([write(), endAndStart()]);
    await bob.until("the last message after the restart", () => bob.texts(room, signal).includes(wanted.at(-1)));
    assertSameList(bob.texts(room, signal), wanted, `what Bob has after ${signal}`);
    const lost = acknowledged.filter((id) => !bob.wire.get(room).includes(id));
    assertSame(lost, [], `acknowledged before ${signal}, gone after`);
}

async function carryOn(alice, bob, room) {
    bob.stop();
    const { event_id: id } = await alice.client.sendTextMessage(room, "while Bob was away");
    const again = bob.carryOn();
    await again.start();
    await again.untilEvent(room, id, "what was said in between");
    const { event_id: answer } = await again.client.sendTextMessage(room, "back again");
    await alice.untilEvent(room, answer, "Bob's answer");
    return again;
}

async function allOfHistory(server, alice, room) {
    const device = new Person(server.url, "bob");
    await device.login(PASSWORD, "second");
    await device.start(10);
    const timeline = device.room(room).getLiveTimeline();
    assert(timeline.getPaginationToken(Direction.Backward), "the first timeline of a long room is limited");
    while (await device.client.paginateEventTimeline(timeline, { backwards: true, limit: 7 }));
    assertSame(timeline.getEvents()[0].getType(), EventType.RoomCreate, "where the history begins");
    for (const prefix of ["burst ", "SIG"]) {
        assertSameList(device.texts(room, prefix), alice.texts(room, prefix), "what the library shows of the history");
    }
    const history = [...device.wirePages.reverse(), ...device.wire.get(room)];
    await alice.until("the newest event", () => alice.wire.get(room).includes(history.at(-1)));
    assertSameList(history, alice.wire.get(room), "the history, against what /sync sent to Alice");
    await device.client.logout(true);
}

async function logout(server, alice) {
    const accessToken = alice.client.getAccessToken();
    await alice.client.logout(true);
    const gone = new Person(server.url, alice.name);
    gone.connect({ accessToken });
    const refused = await rejection(gone.client.whoami(), "a token after logout");
    assertSame([refused.httpStatus, refused.errcode], [401, "M_UNKNOWN_TOKEN"], "a token after logout");
}

async function scenario(server, signal) {
    const started = Date.now();
    const step = (name) => console.log(`  ${((Date.now() - started) / 1000).toFixed(2).padStart(6)} s  ${name}`);
    const alice = await registerAndLogin(server, "alice");
    const bob = await registerAndLogin(server, "bob");
    step("registered, logged in, syncing");
    const room = await createInviteJoin(alice, bob);
    step("created, invited, joined");
    const message = await sendOnce(alice, bob, room);
    step("sent, once");
    await edit(alice, bob, room, message);
    step("edited");
    await reactAndRedact(alice, bob, room, message);
    step("reacted and redacted");
    await receipts(alice, bob, room, message);
    step("receipts on both sides");
    await typing(alice, bob, room);
    step("typing");
    await profile(alice, bob, room);
    step("profile change");
    await burst(alice, bob, room);
    step(`${BURST} messages in order`);
    await restart(server, alice, bob, room, signal);
    step(`${signal} and restart, nothing lost or repeated`);
    const again = await carryOn(alice, bob, room);
    step("carried on from a stored token");
    await allOfHistory(server, alice, room);
    step("all of history");
    await encryptedRoom(server);
    step("an encrypted room, cross-signed");
    await logout(server, alice);
    step("logged out");
    again.stop();
    for (const person of [alice, bob, again]) assert(!person.failure, `${person.name}: ${person.failure}`);
    return new Set([...alice.unrecognized, ...bob.unrecognized]);
}

// The library logs to the console, much and by any of these names; the scenario uses `log` only.
for (const name of ["trace", "debug", "info", "warn", "error"]) console[name] = () => {};
for (const signal of ["SIGTERM", "SIGKILL"]) {
    console.log(`matrix-js-sdk, restart with ${signal}`);
    const server = await Server.start();
    try {
        const unrecognized = await scenario(server, signal);
        if (unrecognized.size > 0) console.log(`  asked for and not there: ${[...unrecognized].join(", ")}`);
    } catch (error) {
        console.log(`${error.stack}\n--- the end of the server's log:\n${server.lastLines()}`);
        process.exitCode = 1;
        break;
    } finally {
        await server.remove();
    }
}
if (!process.exitCode) console.log("matrix-js-sdk: everything as it should be");
process.exit();

// A user at a matrix-js-sdk client, set up as Element does it, and a tap on the wire: the library hides an event that
// /sync delivers twice, so what it received is recorded where it arrives.

import { webcrypto } from "node:crypto";
import { ClientEvent, createClient, Filter, SyncState } from "matrix-js-sdk";
import { assert, until } from "./wait.mjs";

const TIMELINE_LIMIT = 100;

// Node.js 18, which Debian 12 has, does not show it; browsers and later versions do.
globalThis.crypto ??= webcrypto;

export class Person {
    constructor(url, name) {
        this.url = url;
        this.name = name;
        this.wire = new Map();
        this.wireReceipts = [];
        this.wirePages = [];
        this.wireDevices = [];
        this.unrecognized = new Set();
        this.connect({});
    }

    connect(session) {
        const fetchFn = (...request) => this.fetch(...request);
        this.client = createClient({ baseUrl: this.url, fetchFn, cryptoCallbacks: this.secretStorage(), ...session });
    }

    // Remembers the key of the secret storage, which an application would ask the user for.
    secretStorage() {
        const keys = new Map();
        return {
            cacheSecretStorageKey: (id, _info, key) => keys.set(id, key),
            getSecretStorageKey: async ({ keys: wanted }) => {
                const id = Object.keys(wanted).find((id) => keys.has(id));
                return id ? [id, keys.get(id)] : null;
            },
        };
    }

    get id() {
        return this.client.getUserId();
    }

    async login(password, device) {
        const session = await this.client.login("m.login.password", {
            identifier: { type: "m.id.user", user: this.name },
            password,
            initial_device_display_name: device,
        });
        this.connect({ userId: session.user_id, deviceId: session.device_id, accessToken: session.access_token });
    }

    // Another client of this person that has stored the session and nothing else.
    carryOn() {
        const other = new Person(this.url, this.name);
        const accessToken = this.client.getAccessToken();
        other.connect({ userId: this.id, deviceId: this.client.getDeviceId(), accessToken });
        return other;
    }

    async start(initialSyncLimit = 20) {
        this.client.on(ClientEvent.SyncUnexpectedError, (error) => (this.failure ??= error));
        const filter = new Filter(this.id);
        filter.setTimelineLimit(TIMELINE_LIMIT);
        await this.client.startClient({
            initialSyncLimit,
            filter,
            lazyLoadMembers: true,
            threadSupport: true,
            pendingEventOrdering: "detached",
        });
        await this.until("the first sync", () => this.client.getSyncState() === SyncState.Syncing);
    }

    stop() {
        this.client.stopClient();
    }

    async fetch(resource, options) {
        const response = await fetch(resource, options);
        const { pathname, searchParams } = new URL(resource);
        if (response.status >= 500) this.failure ??= new Error(`${options.method} ${pathname}: ${response.status}`);
        if (response.status === 404 && (await response.clone().text()).includes("M_UNRECOGNIZED")) {
            this.unrecognized.add(`${options.method} ${pathname}`);
        }
        if (response.ok && pathname.endsWith("/sync")) {
            this.record(await response.clone().json(), searchParams.has("since"));
        }
        if (response.ok && pathname.endsWith("/messages")) {
            this.wirePages.push(...(await response.clone().json()).chunk.map((event) => event.event_id));
        }
        return response;
    }

    record({ rooms, to_device: toDevice, device_lists: lists }, incremental) {
        this.wireDevices.push(...(lists?.changed ?? []).map((user) => `devices of ${user}`));
        this.wireDevices.push(...(toDevice?.events ?? []).map(({ type }) => type));
        for (const [room, { timeline, ephemeral }] of Object.entries(rooms?.join ?? {})) {
            const known = this.wire.get(room) ?? [];
            const gap = incremental && timeline?.limited && known.length > 0;
            if (gap) this.failure ??= new Error(`a gap, though less than ${TIMELINE_LIMIT} events are new`);
            for (const event of timeline?.events ?? []) {
                if (known.includes(event.event_id)) this.failure ??= new Error(`delivered twice: ${JSON.stringify(event)}`);
                known.push(event.event_id);
            }
            this.wire.set(room, known);
            for (const event of ephemeral?.events ?? []) {
                if (event.type === "m.receipt") this.wireReceipts.push(event.content);
            }
        }
    }

    // Waits for `condition`, unless the client has found something wrong.
    async until(what, condition) {
        return until(`${this.name}: ${what}`, () => {
            assert(!this.failure, `${this.name}: ${this.failure}`);
            return condition();
        });
    }

    room(id) {
        return this.client.getRoom(id);
    }

    event(room, id) {
        return this.room(room)?.findEventById(id);
    }

    untilEvent(room, id, what) {
        return this.until(what, () => this.wire.get(room)?.includes(id) && this.event(room, id));
    }

    texts(room, prefix) {
        const events = this.room(room)?.getLiveTimeline().getEvents() ?? [];
        const bodies = events.map((event) => event.getContent().body ?? "");
        return bodies.filter((body) => body.startsWith(prefix));
    }
}

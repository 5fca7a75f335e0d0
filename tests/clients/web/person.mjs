// Somebody who sits at a browser of their own and uses Element with keyboard and mouse.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { assert, until } from "./wait.mjs";

const WAIT_MS_MAX = 60_000;
const TOAST_MS_MAX = 2_000;
// No sandbox, since tests may run as root; nothing that talks to the makers of the browser.
const SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
];

export class Person {
    /** Opens a browser at Element, which is served from `pages` and talks to `server`. */
    static async at(pages, server, name) {
        const person = new Person();
        person.name = name;
        person.id = `@${name}:localhost`;
        person.address = `${pages.url}/?homeserver=${encodeURIComponent(server.url)}`;
        person.failures = [];
        person.browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: SWITCHES });
        const context = await person.browser.newContext({ viewport: { width: 1200, height: 800 } });
        context.setDefaultTimeout(WAIT_MS_MAX);
        person.page = await context.newPage();
        // What Element wants to be decided ("Set up Secure Backup" and the like) lies over the room: put off.
        const toast = person.page.locator(".mx_Toast_buttons").getByRole("button", { name: /^(Later|Dismiss|Not now)$/ });
        await person.page.addLocatorHandler(toast.first(), (button) =>
            // It may have gone by itself meanwhile.
            button.click({ timeout: TOAST_MS_MAX }).catch(() => {}),
            { noWaitAfter: true },
        );
        // What the server refuses is for Element to handle, also where it forgets to.
        person.page.on("pageerror", ({ message }) => message.startsWith("MatrixError") || person.failures.push(message));
        person.page.on("response", (answer) => {
            if (answer.status() >= 500) person.failures.push(`${answer.status()} ${answer.url()}`);
        });
        return person;
    }

    async register(password) {
        await this.page.goto(`${this.address}#/register`);
        await this.page.getByRole("textbox", { name: "Username" }).fill(this.name);
        await this.page.getByPlaceholder("Password", { exact: true }).fill(password);
        await this.page.getByPlaceholder("Confirm password").fill(password);
        await this.page.getByRole("button", { name: "Register" }).click();
        // Whom one is going to talk to, which Element asks new users of servers that know cross-signing.
        await this.page.getByRole("button", { name: "Skip" }).click();
        await this.page.getByRole("button", { name: "Add room" }).waitFor();
    }

    async login(password) {
        await this.page.goto(`${this.address}#/login`);
        await this.page.getByRole("textbox", { name: "Username" }).fill(this.name);
        await this.page.getByPlaceholder("Password").fill(password);
        await this.page.getByRole("button", { name: "Sign in" }).click();
        await this.page.getByRole("button", { name: "Add room" }).waitFor();
    }

    async createRoom(name, { encrypted }) {
        await this.page.getByRole("button", { name: "Add room" }).click();
        await this.page.getByRole("menuitem", { name: "New room" }).click();
        const dialog = this.page.locator(".mx_Dialog");
        await dialog.getByRole("textbox", { name: "Name" }).fill(name);
        const encryption = dialog.getByRole("switch", { name: "Enable end-to-end encryption" });
        if (!encrypted) await encryption.click();
        await dialog.getByRole("button", { name: "Create room" }).click();
        await this.page.locator(".mx_RoomHeader").getByText(name).waitFor();
    }

    async invite(other) {
        await this.page.getByRole("button", { name: "Invite to this room" }).click();
        const dialog = this.page.locator(".mx_Dialog");
        await dialog.getByRole("textbox").fill(other.id);
        await dialog.locator(".mx_InviteDialog_tile").filter({ hasText: other.id }).first().click();
        await dialog.getByRole("button", { name: "Invite", exact: true }).click();
        await dialog.waitFor({ state: "detached" });
    }

    async acceptInvite(room) {
        await this.openRoom(room);
        await this.page.getByRole("button", { name: "Accept" }).click();
        await this.composer().waitFor();
    }

    async openRoom(room) {
        await this.page.getByRole("tree", { name: "Rooms" }).getByRole("treeitem", { name: new RegExp(room) }).click();
    }

    composer() {
        return this.page.getByRole("textbox", { name: /^Send (a|an encrypted) message/ });
    }

    async say(body) {
        await this.composer().fill(body);
        await this.composer().press("Enter");
        await this.sees(body);
    }

    /** Waits until `body` stands in the open room's timeline. */
    async sees(body) {
        await this.page.locator(".mx_EventTile_body").getByText(body, { exact: true }).waitFor();
    }

    async upload(image) {
        const attach = this.page.locator(".mx_MessageComposer input[type=file]");
        await attach.setInputFiles({ name: "picture.png", mimeType: "image/png", buffer: image });
        await this.page.locator(".mx_Dialog").getByRole("button", { name: "Upload" }).click();
    }

    /** Waits until `count` pictures of the open room's timeline are loaded; answers the address of the last one. */
    async seesPictures(count) {
        const pictures = this.page.locator(".mx_MImageBody img.mx_MImageBody_thumbnail");
        return until(`${count} pictures at ${this.name}`, async () => {
            const loaded = await pictures.evaluateAll((images) =>
                images.filter((image) => image.complete && image.naturalWidth > 0).map((image) => image.src),
            );
            return loaded.length === count && loaded.at(-1);
        });
    }

    async reload() {
        await this.page.reload();
        await this.page.getByRole("button", { name: "Add room" }).waitFor();
    }

    /** Asks the page's own client, to look behind the user interface. */
    ask(question, argument) {
        return this.page.evaluate(question, argument);
    }

    async screenshot(name) {
        mkdirSync(process.env.ARTEFACTS, { recursive: true });
        await this.page.screenshot({ path: join(process.env.ARTEFACTS, `${name}-${this.name}.png`) });
    }

    async close() {
        await this.browser.close();
        assert(this.failures.length === 0, `${this.name}: ${this.failures.join("; ")}`);
    }
}

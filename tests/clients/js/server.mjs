// A Myelin of the scenario's own: free loopback port, temporary data directory, ended by its process id.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, until } from "./wait.mjs";

const PORT_MIN = 20_000;
const PORTS = 12_000;

export class Server {
    static async start() {
        const server = new Server();
        server.directory = mkdtempSync(join(tmpdir(), "myelin-js-"));
        server.log = join(server.directory, "server.log");
        server.port = await freePort();
        server.url = `http://127.0.0.1:${server.port}`;
        await server.start();
        return server;
    }

    async start() {
        const listen = `server.listen=[{ address = "127.0.0.1:${this.port}" }]`;
        const log = openSync(this.log, "a");
        this.process = spawn(process.env.MYELIN_BIN, ["serve", "--dev", "--set", listen], {
            cwd: this.directory,
            stdio: ["ignore", log, log],
        });
        closeSync(log);
        this.ended = once(this.process, "exit");
        await until("the server to be ready", async () => {
            const { exitCode, signalCode } = this.process;
            assert(exitCode === null && signalCode === null, `the server ended:\n${this.lastLines()}`);
            return this.isReady();
        });
    }

    // After SIGTERM the server has to end by itself, with status 0.
    async stop(signal) {
        this.process.kill(signal);
        const [status, by] = await this.ended;
        const right = signal === "SIGTERM" ? status === 0 : by === signal;
        assert(right, `after ${signal} the server ended with ${status ?? by}`);
    }

    async remove() {
        if (this.process.exitCode === null && this.process.signalCode === null) {
            this.process.kill("SIGKILL");
            await this.ended;
        }
        rmSync(this.directory, { recursive: true, force: true });
    }

    async isReady() {
        try {
            return (await fetch(`${this.url}/_matrix/client/versions`)).ok;
        } catch {
            return false;
        }
    }

    lastLines() {
        return readFileSync(this.log, "utf8").split("\n").slice(-40).join("\n");
    }
}

// Below those that the system gives to outgoing connections, which may have taken it by the time the server starts: a
// client that tries to connect to a port on which nobody listens may even meet itself.
async function freePort() {
    for (;;) {
        const port = PORT_MIN + Math.floor(Math.random() * PORTS);
        const listener = createServer().listen(port, "127.0.0.1");
        try {
            await once(listener, "listening");
        } catch {
            continue;
        }
        listener.close();
        await once(listener, "close");
        return port;
    }
}

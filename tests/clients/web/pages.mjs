// Static files on loopback for the browser.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import path from "node:path";

const TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".json": "application/json",
    ".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif", ".wasm": "application/wasm",
    ".woff2": "font/woff2", ".woff": "font/woff", ".ttf": "font/ttf",
};

/** Serves `directory`; `close` ends it. */
export async function serve(directory) {
    const server = createServer(async (request, response) => {
        const { pathname } = new URL(request.url, "http://localhost");
        const file = path.join(directory, path.normalize(pathname === "/" ? "/index.html" : decodeURIComponent(pathname)));
        const found = await stat(file).catch(() => undefined);
        if (!found?.isFile()) return response.writeHead(404).end();
        response.writeHead(200, { "Content-Type": TYPES[path.extname(file)] ?? "application/octet-stream" });
        createReadStream(file).pipe(response);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

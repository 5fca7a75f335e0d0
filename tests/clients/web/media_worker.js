// A service worker: `<img>` cannot send the token that authenticated media asks for, so it is put in here. The page is
// asked for the token, which it alone knows.

const AUTHENTICATED = /\/_matrix\/client\/v1\/media\/(download|thumbnail)\//;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
    if (AUTHENTICATED.test(event.request.url)) event.respondWith(fetchWithToken(event));
});

async function fetchWithToken(event) {
    const page = await self.clients.get(event.clientId);
    const token = page && (await tokenOf(page));
    return fetch(event.request.url, { mode: "cors", headers: token ? { Authorization: `Bearer ${token}` } : {} });
}

function tokenOf(page) {
    const { port1, port2 } = new MessageChannel();
    const answer = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
    page.postMessage("token", [port2]);
    return answer;
}

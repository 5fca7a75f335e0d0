// A service worker, as Element Web has one: the interface asks for media at the paths without authentication, and
// `<img>` cannot send a token. Here such a request goes to the authenticated path, with the token, which the page alone
// knows and is asked for.

const WITHOUT_TOKEN = /\/_matrix\/media\/v3\/(download|thumbnail)\//;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
    if (WITHOUT_TOKEN.test(event.request.url)) event.respondWith(fetchWithToken(event));
});

async function fetchWithToken(event) {
    const page = await self.clients.get(event.clientId);
    const token = page && (await tokenOf(page));
    const authenticated = event.request.url.replace(WITHOUT_TOKEN, "/_matrix/client/v1/media/$1/");
    return fetch(authenticated, { mode: "cors", headers: token ? { Authorization: `Bearer ${token}` } : {} });
}

function tokenOf(page) {
    const { port1, port2 } = new MessageChannel();
    const answer = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
    page.postMessage("token", [port2]);
    return answer;
}

"""A user at a matrix-nio client, who remembers every event that /sync delivered and notices gaps and repetitions."""

import time

from nio import AsyncClient, AsyncClientConfig, MessageDirection, ReceiptType, RoomMessageText

WAIT_SECONDS_MAX = 60
SYNC_TIMEOUT_MS = 5000
TIMELINE_LIMIT = 10
FILTER = {"room": {"timeline": {"limit": TIMELINE_LIMIT}}}


def ok(response, wanted):
    """`response` if it is what the call returns when it succeeds."""
    assert isinstance(response, wanted), f"wanted {wanted.__name__}, got {response}"
    return response


class Person:
    def __init__(self, url, name):
        self.name = name
        self.client = AsyncClient(url, name, config=AsyncClientConfig(encryption_enabled=False, request_timeout=30))
        self.timelines = {}
        self.typing = {}
        self.receipts = {}
        self.transactions = 0
        self.gaps_filled = 0

    @property
    def user_id(self):
        return self.client.user_id

    def carry_on_as(self, url):
        """Another client of this person that has only what a client stores: the access token and the sync token."""
        other = Person(url, self.name)
        other.client.restore_login(self.user_id, self.client.device_id, self.client.access_token)
        other.client.next_batch = self.client.next_batch
        other.timelines = self.timelines
        return other

    async def sync(self, timeout=SYNC_TIMEOUT_MS):
        since = self.client.next_batch
        response = await self.client.sync(timeout=timeout, sync_filter=FILTER)
        assert hasattr(response, "next_batch"), f"{self.name}: /sync failed: {response}"
        for room_id, room in response.rooms.join.items():
            await self.remember(room_id, room, since)
        return response

    async def remember(self, room_id, room, since):
        known = self.timelines.setdefault(room_id, [])
        new = list(room.timeline.events)
        if room.timeline.limited and since and known:
            self.gaps_filled += 1
            new = await self.gap_before(room_id, room.timeline.prev_batch, {e.event_id for e in known}) + new
        assert len(room.timeline.events) <= TIMELINE_LIMIT, f"{self.name}: {len(room.timeline.events)} events in one timeline"
        for event in new:
            assert event.event_id not in {e.event_id for e in known}, f"{self.name}: delivered twice: {event.source}"
            known.append(event)
        for event in room.ephemeral:
            if type(event).__name__ == "TypingNoticeEvent":
                self.typing[room_id] = event.users
            for receipt in getattr(event, "receipts", []):
                self.receipts[(room_id, receipt.user_id, ReceiptType(receipt.receipt_type))] = receipt.event_id

    async def gap_before(self, room_id, token, known):
        """What a limited timeline left out: back from `prev_batch` to the newest event that is known."""
        assert token, f"{self.name}: a limited timeline without prev_batch"
        gap = []
        while token:
            page = await self.client.room_messages(room_id, token, direction=MessageDirection.back, limit=10)
            for event in page.chunk:
                if event.event_id in known:
                    return gap[::-1]
                gap.append(event)
            token = page.end
        raise AssertionError(f"{self.name}: back-pagination ended before the events that /sync had delivered")

    async def until(self, what, condition):
        """Syncs until `condition` holds."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline, f"{self.name} waited {WAIT_SECONDS_MAX} s for {what}; has {self.seen()}"
            await self.sync()

    def event(self, room_id, event_id):
        return next((e for e in self.timelines.get(room_id, []) if e.event_id == event_id), None)

    async def until_event(self, room_id, event_id, what):
        await self.until(what, lambda: self.event(room_id, event_id))
        return self.event(room_id, event_id)

    def texts(self, room_id, prefix):
        events = self.timelines.get(room_id, [])
        return [e.body for e in events if isinstance(e, RoomMessageText) and e.body.startswith(prefix)]

    def seen(self):
        return {room: [(e.event_id, type(e).__name__) for e in events[-12:]] for room, events in self.timelines.items()}

    async def send(self, room_id, content, kind="m.room.message", transaction=None):
        """The event id of a sent event; the library itself repeats the request while the server is away."""
        self.transactions += 1
        transaction = transaction or f"{self.name}-{self.transactions}"
        response = await self.client.room_send(room_id, kind, content, tx_id=transaction)
        assert hasattr(response, "event_id"), f"{self.name}: sending {content} failed: {response}"
        return response.event_id

    async def say(self, room_id, body, **more):
        return await self.send(room_id, {"msgtype": "m.text", "body": body, **more})

    async def history(self, room_id, start, direction, limit):
        """Every event from `start` on, page by page."""
        events, token = [], start
        while token:
            page = await self.client.room_messages(room_id, token, direction=direction, limit=limit)
            assert hasattr(page, "chunk"), f"{self.name}: /messages failed: {page}"
            assert len(page.chunk) <= limit, f"asked for {limit} events, got {len(page.chunk)}"
            assert page.chunk or not page.end or direction == MessageDirection.front, "an empty page that is not the last"
            events += page.chunk
            token = page.end if page.chunk else None
        return events

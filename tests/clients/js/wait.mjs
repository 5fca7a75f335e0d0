// Assertions with a message, and waiting for a condition, which is never a fixed time.

const WAIT_MS_MAX = 60_000;
const POLL_MS = 10;

export function assert(condition, message) {
    if (!condition) throw new Error(message);
}

export function assertSame(found, wanted, what) {
    const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
    assert(a === b, `${what}: found ${a}, wanted ${b}`);
}

export async function until(what, condition) {
    const deadline = Date.now() + WAIT_MS_MAX;
    for (;;) {
        const value = await condition();
        if (value) return value;
        assert(Date.now() < deadline, `waited ${WAIT_MS_MAX / 1000} s for ${what}`);
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
}

// Like `assertSame`, for long lists: says what is missing, what is too much, and where the order differs.
export function assertSameList(found, wanted, what) {
    const missing = wanted.filter((item) => !found.includes(item));
    const extra = found.filter((item) => !wanted.includes(item));
    const differs = wanted.findIndex((item, index) => found[index] !== item);
    const same = differs === -1 && found.length === wanted.length;
    assert(same, `${what}: missing ${missing}; too much ${extra}; differs from place ${differs} of ${wanted.length} on`);
}

// The Matrix error that `promise` is rejected with.
export async function rejection(promise, what) {
    try {
        await promise;
    } catch (error) {
        assert(error.httpStatus, `${what}: wanted an answer of the server, got ${error}`);
        return error;
    }
    throw new Error(`${what} was not refused`);
}

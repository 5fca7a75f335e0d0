export { Buffer } from "buffer/";
export const process = { env: {}, version: "", nextTick: (then, ...args) => queueMicrotask(() => then(...args)) };

// The story of the encrypted room between two servers: `node across.mjs URL OTHER_URL`, each open to registration.

import { encryptedRoom } from "./encrypted.mjs";

const [url, other] = process.argv.slice(2);
// The library logs to the console, much and by any of these names.
for (const name of ["trace", "debug", "info", "warn", "error"]) console[name] = () => {};
try {
    await encryptedRoom({ url }, { url: other });
} catch (error) {
    console.log(error.stack);
    process.exitCode = 1;
}
process.exit();

// A PNG of any size, drawn here: no picture has to be kept in the repository.

import { deflateSync } from "node:zlib";

/** A colour gradient with a dark disc in the middle. */
export function picture(width, height) {
    const rows = Buffer.alloc((width * 3 + 1) * height);
    for (let y = 0; y < height; y++) {
        const row = y * (width * 3 + 1) + 1;
        for (let x = 0; x < width; x++) {
            const inside = Math.hypot(x - width / 2, y - height / 2) < height / 4;
            const colour = inside ? [30, 40, 60] : [(x * 255) / width, (y * 255) / height, 160];
            colour.forEach((value, channel) => (rows[row + x * 3 + channel] = value));
        }
    }
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2, 0, 0, 0], 8);
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(type, data) {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const frame = Buffer.alloc(body.length + 8);
    frame.writeUInt32BE(data.length, 0);
    body.copy(frame, 4);
    frame.writeUInt32BE(crc32(body), body.length + 4);
    return frame;
}

/** The checksum of PNG (ISO 3309), bit by bit: `node:zlib` has it from Node.js 22 on only. */
function crc32(bytes) {
    let sum = 0xffffffff;
    for (const byte of bytes) {
        sum ^= byte;
        for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
    }
    return (sum ^ 0xffffffff) >>> 0;
}

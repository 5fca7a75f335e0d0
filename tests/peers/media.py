"""Files: uploaded at one server, looked at from the other."""

import os
import struct
import zlib

from story import scenario


def png(width, height):
    """An image with noise in it, so that it does not compress to nothing."""
    rows = b"".join(b"\0" + os.urandom(3 * width) for _ in range(height))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def upload(person, content, content_type, name):
    answer = person.session.post(
        f"{person.server.url}/_matrix/media/v3/upload",
        params={"filename": name},
        data=content,
        headers={"Authorization": f"Bearer {person.token}", "Content-Type": content_type},
        timeout=60,
    )
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return answer.json()["content_uri"].removeprefix("mxc://")


def fetch(person, what, **query):
    return person.session.get(
        f"{person.server.url}/_matrix/client/v1/media/{what}",
        params=query,
        headers={"Authorization": f"Bearer {person.token}"},
        timeout=60,
    )


@scenario()
def files_and_thumbnails(stage):
    host, guest = stage.at_home(), stage.at_away()
    picture = png(200, 150)
    file = upload(host, picture, "image/png", "Bild ä.png")
    got = fetch(guest, f"download/{file}")
    assert got.status_code == 200, (got.status_code, got.text)
    assert got.content == picture, f"{len(got.content)} bytes instead of {len(picture)}"
    assert got.headers["Content-Type"] == "image/png", got.headers
    assert "Bild" in got.headers["Content-Disposition"], got.headers

    small = fetch(guest, f"thumbnail/{file}", width=32, height=32, method="crop")
    assert small.status_code == 200, (small.status_code, small.text)
    assert small.headers["Content-Type"].startswith("image/"), small.headers
    assert 0 < len(small.content) < len(picture), len(small.content)

    large = os.urandom(5_000_000) + b"\r\n--"
    file = upload(host, large, "application/octet-stream", "large.bin")
    got = fetch(guest, f"download/{file}")
    assert got.status_code == 200 and got.content == large, (got.status_code, len(got.content))


@scenario()
def files_that_are_not_there(stage):
    guest = stage.at_away()
    got = fetch(guest, f"download/{stage.home.name}/nothing")
    assert got.status_code == 404 and got.json()["errcode"] == "M_NOT_FOUND", (got.status_code, got.text)
    got = fetch(guest, f"thumbnail/{stage.home.name}/nothing", width=32, height=32)
    assert got.status_code == 404, (got.status_code, got.text)

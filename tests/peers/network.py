"""The network between the servers: each is reached through a relay, which can be told who may not talk with whom.

A server's name is `localhost:PORT`, where PORT is that of its relay. Who connects is found out by the process that the
connection belongs to, so a server that is cut off neither hears nor is heard.
"""

import asyncio
import os
import socket
import threading


class Network:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.relays = []
        self.cuts = set()
        self.limits = {}

    def relay(self, server, backend_port):
        """Starts the relay of `server`; returns its port."""
        relay = Relay(self, server, backend_port)
        self.relays.append(relay)
        return self.run(relay.listen())

    def cut(self, one, other):
        self.cuts.add(frozenset((one, other)))
        self.run(self.drop(one, other))

    def hold_back(self, answering, asking, bytes_max):
        """Of what one server answers the other from now on, so much passes on each connection, the rest once it is healed."""
        self.limits[answering, asking] = Limit(bytes_max)

    def heal(self):
        self.cuts.clear()
        limits, self.limits = self.limits, {}
        for limit in limits.values():
            self.loop.call_soon_threadsafe(limit.lifted.set)

    def isolate(self, server):
        for relay in self.relays:
            if relay.server is not server:
                self.cut(server, relay.server)

    def is_cut(self, one, other):
        return frozenset((one, other)) in self.cuts

    async def drop(self, one, other):
        for relay in self.relays:
            for connection in list(relay.connections):
                if {connection.source, relay.server} == {one, other}:
                    connection.close()

    def owner(self, port, relay_port):
        """The server whose process has the connection from `port`."""
        inode = socket_inode(port, relay_port)
        for relay in self.relays:
            if inode and relay.server.owns_socket(inode):
                return relay.server
        return None

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=30)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=10)


class Relay:
    def __init__(self, network, server, backend_port):
        self.network = network
        self.server = server
        self.backend_port = backend_port
        self.port = None
        self.connections = set()

    async def listen(self):
        listener = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        # `localhost` may mean either family.
        if socket.has_dualstack_ipv6():
            await asyncio.start_server(self.accept, "::1", self.port)
        return self.port

    async def accept(self, reader, writer):
        source = self.network.owner(writer.get_extra_info("peername")[1], self.port)
        if self.network.is_cut(source, self.server):
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.backend_port)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(source, writer, to_writer)
        self.connections.add(connection)
        try:
            limit = lambda: self.network.limits.get((self.server, source))
            await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer, limit))
        finally:
            connection.close()
            self.connections.discard(connection)


class Connection:
    def __init__(self, source, *writers):
        self.source = source
        self.writers = writers

    def close(self):
        for writer in self.writers:
            writer.transport.abort()


class Limit:
    def __init__(self, bytes_max):
        self.bytes_max = bytes_max
        self.lifted = asyncio.Event()


async def pump(reader, writer, limit_of=lambda: None):
    passed = 0
    try:
        while data := await reader.read(65536):
            limit = limit_of()
            passed = passed + len(data) if limit else 0
            if limit and passed > limit.bytes_max:
                await limit.lifted.wait()
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
    except OSError:
        writer.transport.abort()


def socket_inode(local_port, remote_port):
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                for line in list(lines)[1:]:
                    fields = line.split()
                    ports = [int(fields[n].rsplit(":", 1)[1], 16) for n in (1, 2)]
                    if ports == [local_port, remote_port]:
                        return fields[9]
        except OSError:
            continue
    return None


def process_owns(pid, inode):
    directory = f"/proc/{pid}/fd"
    try:
        return any(link_of(f"{directory}/{number}") == f"socket:[{inode}]" for number in os.listdir(directory))
    except OSError:
        return False


def link_of(path):
    try:
        return os.readlink(path)
    except OSError:
        return None

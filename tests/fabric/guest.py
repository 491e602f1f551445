#!/usr/bin/env python3
"""A guest's network, inside a namespace of its own: awake it answers, asleep it does not.

usage: ip netns exec NAMESPACE guest.py MAC ADDRESS RARPS [awake-kernel]

The kernel of the namespace answers ARP, pings and TCP for the address that it has; a guest that sleeps has none. With
awake-kernel it has the address before the guest is there, as a launcher pod with a masquerade binding has: that kernel
answers pings, and resets connections that it does not know.

A line on standard input is an order, and is answered with a line of JSON that has the time of it (seconds since the
epoch):
  sleep           it has left, or is paused: it answers nothing. The reply has its TCP connections, too, to go with it
  wake [MEMORY]   it has arrived, with these connections; and announces itself by RARPS RARPs as QEMU does: at once, then
                  after 50, 150, 250 ms, ...
  announce        one RARP, from any guest
It echoes what TCP connections to port 7 bring. Connections move as checkpoints do (TCP_REPAIR of tcp(7)).
"""

import array
import fcntl
import json
import selectors
import socket
import struct
import sys
import time

RARP = 0x8035
PORT = 7
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
RTM_NEWADDR, RTM_DELADDR, IFA_ADDRESS, IFA_LOCAL = 20, 21, 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 1, 4, 0x100, 0x400
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_WINDOW = 19, 20, 21, 29
NO_QUEUE, RECEIVED, SENT = 0, 1, 2
SIOCINQ, SIOCOUTQ = 0x541B, 0x5411
IP_TRANSPARENT = 19


def announcement(mac):
    """An Ethernet frame: a reverse ARP request of one's own address (RFC 903)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    return (b"\xff" * 6 + mac + struct.pack("!H", RARP) + body).ljust(60, b"\0")


def without_offload(interface):
    """Has the kernel fill in checksums itself: a datapath in userspace sees what is left to a card that is none."""
    value = array.array("I", [ETHTOOL_STXCSUM, 0])
    request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


class Address:
    """The address of eth0, put on and taken off within microseconds (rtnetlink(7))."""

    def __init__(self, text):
        self.bytes = socket.inet_aton(text)
        self.index = socket.if_nametoindex("eth0")
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)

    def set(self, there):
        kind, flags = (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) if there else (RTM_DELADDR, 0)
        attributes = b"".join(struct.pack("HH4s", 8, kind, self.bytes) for kind in (IFA_LOCAL, IFA_ADDRESS))
        body = struct.pack("BBBBi", socket.AF_INET, 32, 0, 0, self.index) + attributes
        head = struct.pack("IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0)
        self.netlink.send(head + body)
        self.netlink.recv(4096)


def save(connection):
    """All that there is of a connection; it ends here without a word."""
    memory = {"peer": connection.getpeername(), "local": connection.getsockname(), "queues": []}
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    for queue, how_many in ((RECEIVED, SIOCINQ), (SENT, SIOCOUTQ)):
        count = struct.unpack("i", fcntl.ioctl(connection, how_many, bytes(4)))[0]
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        end = connection.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF
        data = connection.recv(count, socket.MSG_PEEK) if count else b""
        memory["queues"].append([queue, (end - len(data)) & 0xFFFFFFFF, data.hex()])
    memory["window"] = connection.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, 20).hex()
    connection.close()
    return memory


def restore(memory):
    """The connection as it was, and not a packet is sent for it but a probe of the peer's window."""
    connection = socket.socket()
    # Its address comes last, so that no kernel without the connection is ever asked about it.
    connection.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    for queue, begin, _ in memory["queues"]:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        connection.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", begin))
    connection.bind(tuple(memory["local"]))
    connection.connect(tuple(memory["peer"]))
    for queue, _, data in memory["queues"]:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        if data:
            connection.send(bytes.fromhex(data))
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, NO_QUEUE)
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, bytes.fromhex(memory["window"]))
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    # A listener on the same port is to follow.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return connection


class Guest:
    def __init__(self, mac, address, rarps, awake_kernel):
        without_offload("eth0")
        self.frame, self.rarps, self.due = announcement(mac), rarps, []
        self.address = Address(address)
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.wire.bind(("eth0", 0))
        self.events = selectors.DefaultSelector()
        self.events.register(sys.stdin, selectors.EVENT_READ, self.order)
        self.listener, self.connections = None, []
        self.address.set(awake_kernel)

    def serve(self):
        while True:
            wait = max(0.0, self.due[0] - time.monotonic()) if self.due else None
            for key, _ in self.events.select(wait):
                key.data()
            while self.due and self.due[0] <= time.monotonic():
                self.due.pop(0)
                self.wire.send(self.frame)

    def order(self):
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        order, _, memory = line.strip().partition(" ")
        told = {}
        if order == "sleep":
            told["connections"] = self.sleep()
        elif order == "wake":
            self.wake(json.loads(memory or "[]"))
        elif order == "announce":
            self.wire.send(self.frame)
        told["at"] = time.time()
        print(json.dumps(told), flush=True)

    def sleep(self):
        self.address.set(False)
        self.due = []
        if self.listener:
            self.events.unregister(self.listener)
            self.listener.close()
            self.listener = None
        saved = []
        for connection in self.connections:
            self.events.unregister(connection)
            saved.append(save(connection))
        self.connections = []
        return saved

    def wake(self, memory):
        for connection in memory:
            self.take(restore(connection))
        self.listener = socket.create_server(("", PORT))
        self.events.register(self.listener, selectors.EVENT_READ, self.accept)
        self.address.set(True)
        if self.rarps:
            self.wire.send(self.frame)
            now = time.monotonic()
            self.due = [now + 0.05 + 0.1 * number for number in range(self.rarps - 1)]

    def accept(self):
        # An order of the same moment may have put it to sleep.
        if self.listener:
            self.take(self.listener.accept()[0])

    def take(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.append(connection)
        self.events.register(connection, selectors.EVENT_READ, lambda: self.echo(connection))

    def echo(self, connection):
        if connection not in self.connections:
            return
        try:
            data = connection.recv(4096)
            if data:
                connection.send(data)
                return
        except OSError:
            pass
        self.events.unregister(connection)
        self.connections.remove(connection)
        connection.close()


def main():
    mac = bytes.fromhex(sys.argv[1].replace(":", ""))
    Guest(mac, sys.argv[2], int(sys.argv[3]), "awake-kernel" in sys.argv[4:]).serve()


main()

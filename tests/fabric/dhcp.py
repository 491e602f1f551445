#!/usr/bin/env python3
"""Listens to the DHCP of eth0 in its namespace, and tells it at the end of its standard input, as JSON.

A DHCPv4 message is [OUT, TYPE, TO]: whether the guest has sent it, its type by name, and the IP address that it goes to.
"""

import json
import selectors
import socket
import struct
import sys

ETH_P_ALL, PACKET_OUTGOING = 3, 4
TYPES = [None, "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM"]
COOKIE = b"\x63\x82\x53\x63"


def kind(frame):
    """The type of a DHCPv4 message and where it goes, or None."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
        return None
    header = 14 + (frame[14] & 15) * 4
    if set(struct.unpack_from("!HH", frame, header)) != {67, 68}:
        return None
    at = header + 8 + 236
    if frame[at : at + 4] != COOKIE:
        return None
    at += 4
    while at + 1 < len(frame) and frame[at] != 255:
        if frame[at] == 53:
            return TYPES[frame[at + 2]], socket.inet_ntoa(frame[30:34])
        at += 1 if frame[at] == 0 else 2 + frame[at + 1]
    return None


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("eth0", ETH_P_ALL))
    events = selectors.DefaultSelector()
    for source in (wire, sys.stdin):
        events.register(source, selectors.EVENT_READ)
    print("ready", flush=True)
    heard = []
    while True:
        ready = [key.fileobj for key, _ in events.select()]
        if wire in ready:
            frame, where = wire.recvfrom(4096)
            message = kind(frame)
            if message:
                heard.append([where[2] == PACKET_OUTGOING, *message])
        elif sys.stdin in ready:
            print(json.dumps(heard), flush=True)
            return


main()

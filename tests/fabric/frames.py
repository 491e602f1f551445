#!/usr/bin/env python3
"""Frames of a guest that claims what is its own and what is not, and the ears of its neighbour.

usage: ip netns exec NAMESPACE frames.py send|hear WHO

WHO is JSON: own, victim and router, each with mac, ipv4 and ipv6; vip4 and vip6, further addresses. Both sides make the same
frames from it. `send` sends each twice and the frame "end" last. `hear` prints "ready", listens until it hears that one or its
standard input ends, and prints the names of the frames that came as one line of JSON, sorted.
"""

import json
import select
import socket
import struct
import sys
import time

ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
RANDOM = "fe80::1c5b:8d0:77a1:9e02"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def link_local(text):
    """The address that is made from a MAC (RFC 4291 appendix A)."""
    octets = mac(text)
    return socket.inet_ntop(
        socket.AF_INET6, ip("fe80::")[:8] + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    )


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp(source, address):
    """An announcement (RFC 5227)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac(source) + ip(address) + bytes(6) + ip(address)
    return (mac(BROADCAST) + mac(source) + b"\x08\x06" + body).ljust(60, b"\0")


def udp4(source, address, to_mac, to):
    body = struct.pack("!HHHH", 1000, 2000, 16, 0) + b"8 octets"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0) + ip(address) + ip(to)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return (mac(to_mac) + mac(source) + b"\x08\x00" + head + body).ljust(60, b"\0")


def ipv6(source, address, to_mac, to, protocol, body, at):
    """`at` is where the checksum of the body stands."""
    pseudo = ip(address) + ip(to) + struct.pack("!II", len(body), protocol)
    body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255) + ip(address) + ip(to)
    return mac(to_mac) + mac(source) + b"\x86\xdd" + head + body


def icmp6(source, address, kind, rest, to=ALL_NODES, to_mac=ALL_NODES_MAC):
    return ipv6(source, address, to_mac, to, 58, struct.pack("!BBH", kind, 0, 0) + rest, 2)


def solicitation(source, address, target):
    low = ip(target)[-3:]
    group, group_mac = ip("ff02::1:ff00:0")[:13] + low, "33:33:ff:" + low.hex(":")
    rest = bytes(4) + ip(target) + b"\1\1" + mac(source)
    return icmp6(source, address, 135, rest, socket.inet_ntop(socket.AF_INET6, group), group_mac)


def advertisement(source, address, target, link=None):
    return icmp6(source, address, 136, b"\x20\0\0\0" + ip(target) + b"\2\1" + mac(link or source))


def router_advertisement(source, address):
    return icmp6(source, address, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\1\1" + mac(source))


def solicit(source, address):
    """DHCPv6 without an option: nobody answers it."""
    body = struct.pack("!HHHH", 546, 547, 12, 0) + b"\1\0\0\1"
    return ipv6(source, address, "33:33:00:01:00:02", "ff02::1:2", 17, body, 6)


def frames(who):
    own, victim, router = who["own"], who["victim"], who["router"]
    me, unknown = own["mac"], "fe80::dead"
    mine, others, routers = (link_local(whose["mac"]) for whose in (own, victim, router))
    to_victim = victim["mac"], victim["ipv4"]
    return {
        "ARP for its own address": arp(me, own["ipv4"]),
        "ARP for the victim's address": arp(me, victim["ipv4"]),
        "ARP for the router's address": arp(me, router["ipv4"]),
        "ARP for the VIP": arp(me, who["vip4"]),
        "IPv4 from its own address": udp4(me, own["ipv4"], *to_victim),
        "IPv4 from the router's address": udp4(me, router["ipv4"], *to_victim),
        "IPv4 from the VIP": udp4(me, who["vip4"], *to_victim),
        "IPv4 from the router's MAC": udp4(router["mac"], own["ipv4"], *to_victim),
        "NS from its own link-local": solicitation(me, mine, unknown),
        "NS from a random link-local": solicitation(me, RANDOM, unknown),
        "NS from the router's link-local": solicitation(me, routers, unknown),
        "NA for its own address": advertisement(me, own["ipv6"], own["ipv6"]),
        "NA for the VIP": advertisement(me, own["ipv6"], who["vip6"]),
        "NA for a random link-local": advertisement(me, mine, RANDOM),
        "NA for a random link-local at the victim": advertisement(me, mine, RANDOM, victim["mac"]),
        "NA for the victim's address": advertisement(me, mine, victim["ipv6"]),
        "NA for the victim's link-local": advertisement(me, mine, others),
        "NA for the router's address": advertisement(me, mine, router["ipv6"]),
        "NA for the router's link-local": advertisement(me, mine, routers),
        "RA from its own link-local": router_advertisement(me, mine),
        "RA from a random link-local": router_advertisement(me, RANDOM),
        "RA from the router's link-local": router_advertisement(me, routers),
        "RA from the router's MAC": router_advertisement(router["mac"], routers),
        "SOLICIT from its own link-local": solicit(me, mine),
        "SOLICIT from a random link-local": solicit(me, RANDOM),
        "SOLICIT from the victim's address": solicit(me, victim["ipv6"]),
        "end": arp(me, own["ipv4"])[:-3] + b"end",
    }


def main():
    doing, made = sys.argv[1], frames(json.loads(sys.argv[2]))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind(("eth0", 0))
    if doing == "send":
        end = made.pop("end")
        for _ in range(2):
            for frame in made.values():
                wire.send(frame)
            # What goes through vswitchd itself may be overtaken.
            time.sleep(0.2)
        wire.send(end)
        return
    heard = set()
    print("ready", flush=True)
    while "end" not in heard:
        ready, _, _ = select.select([wire, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        frame = wire.recv(2048)
        heard.update(name for name, sent in made.items() if frame[: len(sent)] == sent)
    print(json.dumps(sorted(heard - {"end"})), flush=True)


main()

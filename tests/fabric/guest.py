#!/usr/bin/env python3
"""A guest's network, inside a namespace of its own: awake it answers, asleep it does not.

usage: ip netns exec NAMESPACE guest.py MAC RARPS

A line on standard input is an order, and is answered with the time (seconds since the epoch) at which it was done:
  sleep    answers neither ping nor ARP from now on, as a guest that is paused or has not arrived
  wake     answers again, and announces itself by RARPS RARPs as QEMU does: at once, then after 50, 150, 250 ms, ...
The files of /proc that matter are opened beforehand, so that an order takes microseconds.
"""

import socket
import struct
import sys
import time

RARP = 0x8035


def announcement(mac):
    """An Ethernet frame: a reverse ARP request of one's own address (RFC 903)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    return (b"\xff" * 6 + mac + struct.pack("!H", RARP) + body).ljust(60, b"\0")


def main():
    mac = bytes.fromhex(sys.argv[1].replace(":", ""))
    rarps = int(sys.argv[2])
    echo = open("/proc/sys/net/ipv4/icmp_echo_ignore_all", "w")
    arp = open("/proc/sys/net/ipv4/conf/all/arp_ignore", "w")
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("eth0", 0))
    frame = announcement(mac)

    def silent(yes):
        for file, value in ((echo, "1" if yes else "0"), (arp, "8" if yes else "0")):
            file.write(value)
            file.flush()

    for order in sys.stdin:
        asleep = order.strip() == "sleep"
        silent(asleep)
        if not asleep and rarps:
            wire.send(frame)
        print(f"{time.time():.6f}", flush=True)
        for number in range(1, rarps if not asleep else 0):
            time.sleep(0.05 if number == 1 else 0.1)
            wire.send(frame)


main()

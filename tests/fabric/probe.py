#!/usr/bin/env python3
"""Pings an address at exact intervals, until its standard input ends, and tells what came back as one line of JSON.

usage: ip netns exec NAMESPACE probe.py ADDRESS INTERVAL_MS

Each request has its own deadline from the start, so that a loss does not stretch the intervals. Told are: sent, lost
(never answered), duplicates, late (answered after 50 ms: something held it back), silence_ms (the longest time in which
no answer came, less one interval), resumed (when that ended, in seconds since the epoch), busy (how busy the machine's
processors were, in percent), unanswered (when each request was sent that was lost), first and last (when the first and the
last one was sent that was answered; null without any).
"""

import json
import os
import select
import socket
import struct
import sys
import threading
import time

LATE = 0.05
PATIENCE = 0.5


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(identity, number):
    payload = struct.pack("!I", number) + b"ovn-kubevirt" * 3
    head = struct.pack("!BBHHH", 8, 0, 0, identity, number & 0xFFFF)
    return struct.pack("!BBHHH", 8, 0, checksum(head + payload), identity, number & 0xFFFF) + payload


def processors():
    with open("/proc/stat") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def main():
    address, interval = sys.argv[1], float(sys.argv[2]) / 1000
    identity = os.getpid() & 0xFFFF
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    wire.settimeout(0.1)
    sent, answers, duplicates = [], {}, [0]
    over = threading.Event()

    def listen():
        while not over.is_set():
            try:
                packet = wire.recv(2048)
            except socket.timeout:
                continue
            now = time.monotonic()
            body = packet[(packet[0] & 15) * 4:]
            kind, _, _, whose, _ = struct.unpack("!BBHHH", body[:8])
            if kind == 0 and whose == identity:
                number = struct.unpack("!I", body[8:12])[0]
                if number in answers:
                    duplicates[0] += 1
                else:
                    answers[number] = now

    listener = threading.Thread(target=listen)
    listener.start()
    all_before, idle_before = processors()
    begun = time.monotonic()
    print("pinging", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        sent.append(time.monotonic())
        try:
            wire.sendto(request(identity, len(sent) - 1), (address, 0))
        except OSError:
            pass  # No route for the moment: as good as lost.
        left = begun + len(sent) * interval - time.monotonic()
        if left > 0:
            time.sleep(left)
    all_after, idle_after = processors()
    time.sleep(PATIENCE)
    over.set()
    listener.join()
    arrivals = sorted(answers.values())
    gaps = [later - earlier for earlier, later in zip(arrivals, arrivals[1:])]
    longest = max(range(len(gaps)), key=gaps.__getitem__, default=None)
    resumed = arrivals[longest + 1] if longest is not None else begun
    epoch = time.time() - time.monotonic()
    print(json.dumps({
        "sent": len(sent),
        "lost": len(sent) - len(answers),
        "duplicates": duplicates[0],
        "late": sum(1 for number, at in answers.items() if at - sent[number] > LATE),
        "silence_ms": round(max(0.0, max(gaps, default=0.0) - interval) * 1000, 1),
        "resumed": resumed + epoch,
        "busy": round(100 * (1 - (idle_after - idle_before) / max(1, all_after - all_before))),
        "unanswered": [at + epoch for number, at in enumerate(sent) if number not in answers],
        "first": sent[min(answers)] + epoch if answers else None,
        "last": sent[max(answers)] + epoch if answers else None,
    }), flush=True)


main()

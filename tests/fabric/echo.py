#!/usr/bin/env python3
"""Keeps one TCP connection to port 7 of an address busy, until its standard input ends, and tells what became of it as
one line of JSON.

usage: ip netns exec NAMESPACE echo.py ADDRESS

Every 10 ms a request is sent and its echo awaited, however long it takes; a connection that is reset, or refused, is
made again. The reply has: echoes, resets (refusals included), silence_ms (the longest time without an echo).
"""

import json
import select
import socket
import struct
import sys
import time

PORT = 7
INTERVAL = 0.01


def ended():
    return bool(select.select([sys.stdin], [], [], 0)[0])


def connect(address):
    """A connection, tried again until there is one; and how often it was refused."""
    refused = 0
    while not ended():
        connection = socket.socket()
        connection.settimeout(1.0)
        try:
            connection.connect((address, PORT))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection, refused
        except ConnectionError:
            refused += 1
            time.sleep(INTERVAL)
        except OSError:
            pass
        connection.close()
    return None, refused


def main():
    address = sys.argv[1]
    connection, resets = connect(address)
    print("echoing", flush=True)
    echoes, silence, last = 0, 0.0, time.monotonic()
    while connection and not ended():
        begun = time.monotonic()
        try:
            request = struct.pack("!Q", echoes)
            connection.send(request)
            answer = b""
            while len(answer) < len(request):
                ready = select.select([connection, sys.stdin], [], [])[0]
                if sys.stdin in ready:
                    break
                data = connection.recv(len(request) - len(answer))
                if not data:
                    raise ConnectionResetError
                answer += data
            else:
                now = time.monotonic()
                echoes, silence, last = echoes + 1, max(silence, now - last), now
        except OSError:
            resets += 1
            connection.close()
            connection, refused = connect(address)
            resets += refused
        time.sleep(max(0.0, begun + INTERVAL - time.monotonic()))
    silence = max(silence, time.monotonic() - last)
    print(json.dumps({"echoes": echoes, "resets": resets, "silence_ms": round(silence * 1000, 1)}), flush=True)


main()

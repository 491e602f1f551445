"""A gratuitous ARP for an address, as keepalived sends it when a router of VRRP becomes the master (RFC 5798 section 6.4.1)."""

import socket
import struct


def announce(mac, address):
    mac, address = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(address)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("eth0", 0))
    wire.send((b"\xff" * 6 + mac + b"\x08\x06" + body).ljust(60, b"\0"))

#!/usr/bin/env python3
"""The sealed datagrams of version 1 by other means than haechi's: prints what sealed.hex must be.

Needs the package `cryptography`. Both nodes' randomness is one byte over and over (0x11, 0x22), the pair's key 1, 2, ... 32.
"""

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC


def hmac(key: bytes, data: bytes) -> bytes:
    mac = HMAC(key, SHA256())
    mac.update(data)
    return mac.finalize()


def derive(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, section 2.3, up to one block."""
    return hmac(key, info + b"\x01")[:length]


MIXED = hmac(b"haechi ha 1", bytes(range(1, 33)))
NONE = bytes(16)


def salt(random: bytes, turn: int) -> bytes:
    return derive(random, b"start", 8) + derive(random, b"salt" + struct.pack("<Q", turn), 8)


def datagram(
    kind: int, node: int, thread: int, counter: int, salts: tuple[bytes, bytes], plain: bytes, epoch: int = 0
) -> bytes:
    own, to = salts
    mark = to[12:]
    header = struct.pack("<2sBBBBHI4sQ16s", b"hA", 1, kind, node, 0, thread, epoch, mark, counter, own)
    traffic = derive(MIXED, b"traffic" + bytes([node]) + own + to, 32)
    key = derive(traffic, b"datagram" + struct.pack("<HI", thread, epoch), 32)
    nonce = struct.pack("<HHQ", thread, 0, counter)
    return header + AESGCM(key).encrypt(nonce, plain, header)


first, second = salt(b"\x11" * 32, 1), salt(b"\x22" * 32, 1)
print("hello", datagram(0, 1, 0, 1, (first, NONE), b"").hex())
print("answer", datagram(1, 2, 0, 1, (second, first), b"").hex())
print("data", datagram(1, 1, 0, 2, (first, second), b"version 1").hex())
print("worker", datagram(1, 2, 3, 1, (second, first), b"of a worker").hex())
print("digest_key", derive(MIXED, b"digest", 16).hex())

"""The container of an evidence pack: a .zip of which the files alone decide every byte.

Boundary: names and bytes in, bytes out. Entries are stored, sorted by name and dated 1980, with no
extra fields and no comments, so a reader writes the archive anew and compares: a byte that nobody
would have written is found wherever it stands. Source: spec/evidence.md.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from typing import Final

from farthing.protocol.errors import Unverified

__all__ = ["PACK_BYTES_MAX", "read_pack", "write_pack"]

PACK_BYTES_MAX: Final = 16 * 1024 * 1024
_FILES_MAX: Final = 4096

# Names that any file system takes, that stay inside their folder, and that nobody reads wrongly.
_NAME: Final = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*")
# APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16, little-endian.
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCAL_MARK: Final = b"PK\x03\x04"
_CENTRAL_MARK: Final = b"PK\x01\x02"
_END_MARK: Final = b"PK\x05\x06"
_VERSION_NEEDED: Final = 10
_MADE_BY_UNIX: Final = 3 << 8 | 20
_STORED: Final = 0
_MIDNIGHT: Final = 0
_FIRST_OF_JANUARY_1980: Final = 1 << 5 | 1
_A_PLAIN_FILE: Final = 0o100644 << 16


def write_pack(files: Mapping[str, bytes]) -> bytes:
    """Write files as the one archive there is of them.

    Raises:
        ValueError: Not the name of a file in a pack, or more than a pack may hold.
    """
    if len(files) > _FILES_MAX:
        raise ValueError("more than a pack may hold")
    body, directory = bytearray(), bytearray()
    for name in sorted(files):
        if not _NAME.fullmatch(name):
            raise ValueError("not the name of a file in a pack")
        raw, content = name.encode(), files[name]
        facts = (_STORED, _MIDNIGHT, _FIRST_OF_JANUARY_1980, zlib.crc32(content))
        sizes = (len(content), len(content), len(raw), 0)
        offset = len(body)
        body += _LOCAL.pack(_LOCAL_MARK, _VERSION_NEEDED, 0, *facts, *sizes) + raw + content
        directory += _CENTRAL.pack(
            _CENTRAL_MARK,
            _MADE_BY_UNIX,
            _VERSION_NEEDED,
            0,
            *facts,
            *sizes,
            0,
            0,
            0,
            _A_PLAIN_FILE,
            offset,
        )
        directory += raw
    count = len(files)
    end = _END.pack(_END_MARK, 0, 0, count, count, len(directory), len(body), 0)
    pack = bytes(body + directory + end)
    if len(pack) > PACK_BYTES_MAX:
        raise ValueError("more than a pack may hold")
    return pack


def read_pack(data: bytes) -> dict[str, bytes]:
    """Read an archive that `write_pack` wrote, to the last byte.

    Raises:
        Unverified: The bytes are any other than those its files give.
    """
    if len(data) > PACK_BYTES_MAX:
        raise Unverified("the pack is larger than a pack may be")
    if not data.startswith(_LOCAL_MARK):
        raise Unverified(
            "neither an evidence pack nor a bundle; a receipt is for farthing_verify.py --receipt"
        )
    files: dict[str, bytes] = {}
    offset = 0
    try:
        while data[offset : offset + 4] == _LOCAL_MARK:
            header = _LOCAL.unpack_from(data, offset)
            name_at = offset + _LOCAL.size
            content_at = name_at + header[9]
            offset = content_at + header[8]
            files[data[name_at:content_at].decode("ascii")] = data[content_at:offset]
        written = write_pack(files)
    except (struct.error, ValueError) as error:
        raise Unverified("not an evidence pack, or a damaged one") from error
    if written != data:
        raise Unverified("not an evidence pack, or a changed one: its files give another archive")
    return files

"""What a reader of shards says of bytes that are not what was written."""

from __future__ import annotations


class Damaged(Exception):
    """A shard is missing or too short, or a member's bytes have another checksum than when they were written.

    One line that names shard, uid and offset, and never quotes the content.
    """

"""Objects from one store into another."""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from kaos_hub.bundles import tree
from kaos_hub.errors import Damaged, InvalidBundle, InvalidRequest, NotFound
from kaos_hub.service.backup.folder import Said
from kaos_hub.stores.base import Store

_AT_ONCE = 16
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")


@dataclass
class Copied:
    """The objects that were copied, and those that could not be."""

    objects: int = 0
    """The number that the other store now has, new ones and others."""
    bytes: int = 0
    new: int = 0
    lacking: list[str] = field(default_factory=list)


async def copy(
    source: Store | None, target: Store, wanted: Iterable[tuple[str, int]], say: Said
) -> Copied:
    """Copy what ``target`` lacks; each object is hashed on its way.

    Args:
        source: where from; none: ``target`` has to have all.
        target: where to.
        wanted: digests and sizes.
        say: is told how far it is.
    """
    done, rest = Copied(), iter(wanted)
    while batch := dict(islice(rest, _AT_ONCE * 8)):
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(digest: str, size: int, turns: asyncio.Semaphore = turns) -> None:
            async with turns:
                await _copy(source, target, digest, size, done)

        async with asyncio.TaskGroup() as group:
            for digest, size in batch.items():
                group.create_task(one(digest, size))
        say(f"{done.objects:,} objects, {done.bytes:,} bytes; {done.new:,} of them copied")
    return done


async def _copy(source: Store | None, target: Store, digest: str, size: int, done: Copied) -> None:
    if await target.size(digest) != size:
        try:
            if source is None:
                raise NotFound
            await bring(source, target, digest, size)
        except (NotFound, Damaged):
            done.lacking.append(digest)
            return
        done.new += 1
    done.objects += 1
    done.bytes += size


async def bring(source: Store, target: Store, digest: str, size: int) -> None:
    """Bring one object.

    Raises:
        NotFound: it is not there.
        Damaged: it is not what it should be.
    """
    upload = await target.upload(digest, size)
    try:
        async for piece in source.read(digest):
            await upload.write(piece)
        await upload.finish()
    except InvalidRequest:
        raise Damaged from None
    finally:
        await upload.abort()


def named(text: str) -> set[str]:
    """All digests that a text names."""
    return set(_DIGEST.findall(text))


async def unheld(
    source: Store, names: set[str], without_held: Callable[[set[str]], set[str]]
) -> dict[str, int]:
    """Return the objects that no owner holds, with their sizes.

    They are trees that were laid over one another, and what is below them.

    Args:
        source: where they are; what is not there is none.
        names: digests to begin with.
        without_held: leaves out of digests those that an owner holds.
    """
    found: dict[str, int] = {}
    level = names
    while level := without_held(level - found.keys()):
        below = set[str]()
        for digest in sorted(level):
            size = await source.size(digest)
            if size is not None:
                found[digest] = size
                below |= await _below(source, digest, size)
        level = below
    return found


async def _below(source: Store, digest: str, size: int) -> set[str]:
    """Return the digests that a folder's listing names; none for anything else."""
    if size > tree.MAX_NODE:
        return set()
    content = b"".join([piece async for piece in source.read(digest)])
    try:
        return {entry[1] for entry in tree.lines(content)}
    except InvalidBundle:
        return set()

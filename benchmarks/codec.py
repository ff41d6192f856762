"""Bytes of a book update, and what writing and reading it takes, as a record and as else."""

from __future__ import annotations

import math
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter_ns
from typing import Any

import msgspec

from alphapulse.delta import BookView, ChangeSet, Encoder, decode
from alphapulse.model import BookDelta
from benchmarks.corpus import Corpus, collect
from benchmarks.harness import Absent, Contestant, Figures, Metric, Row, Session, version_of
from benchmarks.traffic import Traffic, generated, load

METRICS = [Metric("bytes", "bytes"), Metric("encode", "ns"), Metric("decode", "ns")]
LARGE_BOOK_LEVELS = 45_000
LARGE_BOOK_EVENTS = 2000

FIXED_BYTES = 256
_FIXED_HEAD = struct.Struct("<IHQQqqqQB")
_FIXED_CHANGE = struct.Struct("<bb6xqq")
_FIXED_CHANGES = (FIXED_BYTES - _FIXED_HEAD.size) // _FIXED_CHANGE.size

DEFLATE_TAIL = b"\x00\x00\xff\xff"

NOTE = f"""\
Per book update that changed the book. Decoding ends in Python objects: ours in the model's, the
others' in what the library gives, without their numbers made exact. The venue's JSON, which has
fewer times, is written and read by msgspec; 'deflate' is the same compressed as permessage-deflate
does, with context takeover (zlib level 6). msgpack and the fixed record hold all that our record
does; one has room for {_FIXED_CHANGES} changes. 'full book' is the whole book as JSON. 'apply' is
ours from a record's bytes into a book, without objects."""


def run(session: Session) -> None:
    """Measure each capture, and a large generated book."""
    rows = []
    for name in ("kraken", "kraken-btcusd-depth10", "binance_us", "coinbase"):
        rows += _compare(session, name, load(name))
    large = generated(
        "coinbase", events=LARGE_BOOK_EVENTS, symbols=1, levels=LARGE_BOOK_LEVELS // 2
    )
    rows += _compare(session, f"{LARGE_BOOK_LEVELS}-levels", large)
    session.show("Codec, per book update", rows, NOTE)


def _compare(session: Session, name: str, traffic: Traffic) -> list[Row]:
    corpus = collect(traffic)
    ours = _Ours(corpus)
    ours.check()
    peers: list[Contestant | Absent] = [
        _Json(corpus.frames).contestant("venue's JSON"),
        _Deflate(corpus).contestant("venue's JSON, deflate"),
        _msgpack(corpus),
        # Of some moments only: one takes as long as thousands of updates.
        _Json([msgspec.json.encode(book) for book in corpus.books]).contestant("full book as JSON"),
        _Fixed(corpus).contestant(f"fixed {FIXED_BYTES} bytes"),
    ]
    rows = session.compare(f"codec/{name}", METRICS, ours.contestant("alphapulse"), peers)
    apply = Contestant("alphapulse", ours.apply)
    return rows + session.compare(f"codec/{name}", [Metric("apply", "ns")], apply)


class _Codec(ABC):
    """A way of writing updates.

    Parameters
    ----------
    values : updates, as the codec takes them
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values

    @abstractmethod
    def encode_all(self) -> None:
        """Write each update once."""

    @abstractmethod
    def decode_all(self) -> None:
        """Read each update once."""

    @abstractmethod
    def mean_bytes(self) -> float:
        """Bytes of an update on average."""

    def measure(self, seconds: float) -> Figures:
        """Sizes are always the same; times are means over all updates."""
        return {
            "bytes": self.mean_bytes(),
            "encode": mean_ns(self.encode_all, seconds / 2) / len(self.values),
            "decode": mean_ns(self.decode_all, seconds / 2) / len(self.values),
        }

    def contestant(self, name: str, version: str = "") -> Contestant:
        """This codec as a contestant."""
        return Contestant(name, self.measure, version)


class _Ours(_Codec):
    def __init__(self, corpus: Corpus) -> None:
        super().__init__([self._prepared(delta) for delta in corpus.deltas])
        self._corpus = corpus
        self._encoder = Encoder()
        self._records = [bytes(self._encode(value)) for value in self.values]

    @staticmethod
    def _prepared(delta: BookDelta) -> tuple[ChangeSet, tuple[int, int, int], dict[str, int]]:
        changes = ChangeSet()
        changes.assign(
            (int(side), price, size, int(action)) for side, price, size, action in delta.changes
        )
        times = {"exchange_ns": delta.exchange_ns, "received_ns": delta.received_ns}
        return changes, (delta.instrument.id, delta.version, delta.prev_version), times

    def _encode(self, value: tuple[ChangeSet, tuple[int, int, int], dict[str, int]]) -> Encoder:
        changes, ids, times = value
        return self._encoder.delta(changes, *ids, **times)

    def check(self) -> None:
        """Nothing is lost between update and record."""
        instruments = self._corpus.instruments
        for record, delta in zip(self._records, self._corpus.deltas, strict=True):
            found = decode(record, instruments, delta.exchange)
            if not isinstance(found, BookDelta) or found.changes != delta.changes:
                raise RuntimeError(f"{delta} became {found}")

    def encode_all(self) -> None:
        encode = self._encoder.delta
        for changes, ids, times in self.values:
            encode(changes, *ids, **times)

    def decode_all(self) -> None:
        instruments, exchange = self._corpus.instruments, self._corpus.exchange
        for record in self._records:
            decode(record, instruments, exchange)

    def mean_bytes(self) -> float:
        return sum(map(len, self._records)) / len(self._records)

    def apply(self, seconds: float) -> Figures:
        """Apply the records to the books that they are about."""
        spent, count = 0, 0
        while spent < seconds * 1e9:
            views = {instrument: BookView() for instrument in self._corpus.instruments}
            pending: list[tuple[Callable[[Any], bool], bytes]] = []
            for instrument, is_delta, record in self._corpus.records:
                if is_delta:
                    pending.append((views[instrument].apply, record))
                    continue
                spent += _spent(pending)
                count += len(pending)
                pending.clear()
                views[instrument].apply(record)
            spent += _spent(pending)
            count += len(pending)
        return {"apply": spent / count}


class _Json(_Codec):
    def __init__(self, texts: Sequence[bytes]) -> None:
        super().__init__([msgspec.json.decode(text) for text in texts])
        self._texts = texts

    def encode_all(self) -> None:
        encode = msgspec.json.Encoder().encode
        for value in self.values:
            encode(value)

    def decode_all(self) -> None:
        read = msgspec.json.Decoder().decode
        for text in self._texts:
            read(text)

    def mean_bytes(self) -> float:
        return sum(map(len, self._texts)) / len(self._texts)


class _Deflate(_Json):
    def __init__(self, corpus: Corpus) -> None:
        super().__init__(corpus.frames)
        press = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._pressed = [_press(press, frame) for frame in self._texts]

    def encode_all(self) -> None:
        encode = msgspec.json.Encoder().encode
        press = zlib.compressobj(6, zlib.DEFLATED, -15)
        for value in self.values:
            _press(press, encode(value))

    def decode_all(self) -> None:
        read = msgspec.json.Decoder().decode
        unpress = zlib.decompressobj(-15)
        for frame in self._pressed:
            read(unpress.decompress(frame + DEFLATE_TAIL))

    def mean_bytes(self) -> float:
        return sum(map(len, self._pressed)) / len(self._pressed)


class _Fixed(_Codec):
    def __init__(self, corpus: Corpus) -> None:
        super().__init__([_plain(delta) for delta in corpus.deltas])
        self._records = [self._encode(value) for value in self.values]

    @staticmethod
    def _encode(value: list[Any]) -> list[bytearray]:
        *head, changes = value
        records = []
        for at in range(0, len(changes), _FIXED_CHANGES):
            part = changes[at : at + _FIXED_CHANGES]
            record = bytearray(FIXED_BYTES)
            _FIXED_HEAD.pack_into(record, 0, FIXED_BYTES, *head, len(part))
            offset = _FIXED_HEAD.size
            for side, price, size, action in part:
                _FIXED_CHANGE.pack_into(record, offset, side, action, price, size)
                offset += _FIXED_CHANGE.size
            records.append(record)
        return records

    def encode_all(self) -> None:
        for value in self.values:
            self._encode(value)

    def decode_all(self) -> None:
        for records in self._records:
            for record in records:
                count = _FIXED_HEAD.unpack_from(record)[-1]
                end = _FIXED_HEAD.size + count * _FIXED_CHANGE.size
                list(_FIXED_CHANGE.iter_unpack(record[_FIXED_HEAD.size : end]))

    def mean_bytes(self) -> float:
        records = sum(map(len, self._records))
        least = sum(math.ceil(len(value[-1]) / _FIXED_CHANGES) for value in self.values)
        assert records == least, "each record is full before the next begins"
        return records * FIXED_BYTES / len(self._records)


class _Packed(_Codec):
    def __init__(
        self, corpus: Corpus, pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any]
    ) -> None:
        super().__init__([_plain(delta) for delta in corpus.deltas])
        self._pack, self._unpack = pack, unpack
        self._texts = [pack(value) for value in self.values]

    def encode_all(self) -> None:
        pack = self._pack
        for value in self.values:
            pack(value)

    def decode_all(self) -> None:
        unpack = self._unpack
        for text in self._texts:
            unpack(text)

    def mean_bytes(self) -> float:
        return sum(map(len, self._texts)) / len(self._texts)


def _msgpack(corpus: Corpus) -> Contestant | Absent:
    version = version_of("msgpack")
    if version is None:
        return Absent("msgpack")
    import msgpack

    return _Packed(corpus, msgpack.packb, msgpack.unpackb).contestant("msgpack", version)


def _plain(delta: BookDelta) -> list[Any]:
    """What a record says, as lists of integers."""
    return [
        delta.instrument.id,
        delta.version,
        delta.prev_version,
        delta.exchange_ns,
        delta.received_ns,
        delta.published_ns,
        delta.sequence,
        [list(map(int, change)) for change in delta.changes],
    ]


def _press(press: Any, data: bytes) -> bytes:
    return bytes((press.compress(data) + press.flush(zlib.Z_SYNC_FLUSH)).removesuffix(DEFLATE_TAIL))


def _spent(pending: Iterable[tuple[Callable[[Any], bool], bytes]]) -> int:
    begun = perf_counter_ns()
    for apply, record in pending:
        apply(record)
    return perf_counter_ns() - begun


def mean_ns(work: Callable[[], None], seconds: float) -> float:
    """What one call takes on average, over calls for so long."""
    begun = perf_counter_ns()
    until = begun + seconds * 1e9
    count = 0
    while True:
        work()
        count += 1
        now = perf_counter_ns()
        if now >= until:
            return (now - begun) / count

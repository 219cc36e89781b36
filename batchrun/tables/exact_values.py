"""Converts values of every Arrow type to JSON's types exactly: numbers, booleans, texts, lists, objects.

Times are ISO 8601 with all their digits, binary is base64, a map whose keys are texts is an object and any
other a list of pairs. Intended for types without a Python type; common ones have a faster way.
"""

from base64 import b64encode
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import types

_PLACES = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_DAY_SECONDS = 86_400
_DAYS_OF_400_YEARS = 146_097


def exact_values(column: pa.Array) -> list[Any]:
    """Returns the values of `column`, None for null."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _extension_values(column)
    if types.is_dictionary(kind):
        return list(_looked_up(column))
    if types.is_run_end_encoded(kind):
        import pyarrow.compute as pc

        return exact_values(pc.run_end_decode(column))
    if types.is_nested(kind) and not types.is_union(kind):
        return _nested_values(column)
    if types.is_temporal(kind):
        return _temporal_values(column)
    return _scalar_values(column)


def _extension_values(column: pa.Array) -> list[Any]:
    if isinstance(column.type, pa.UuidType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if isinstance(column.type, pa.Bool8Type):
        return exact_values(column.storage.cast(pa.bool_()))
    return exact_values(column.storage)


def _looked_up(column: pa.DictionaryArray) -> Iterator[Any]:
    values = exact_values(column.dictionary)
    return (None if index is None else values[index] for index in column.indices.to_pylist())


def _nested_values(column: pa.Array) -> list[Any]:
    kind = column.type
    valid = column.is_valid().to_pylist()
    if types.is_struct(kind):
        fields = [exact_values(column.field(place)) for place in range(kind.num_fields)]
        names = [field.name for field in kind]
        rows = zip(*fields, strict=True) if fields else iter(() for _ in valid)
        return [
            dict(zip(names, row, strict=True)) if is_valid else None
            for row, is_valid in zip(rows, valid, strict=True)
        ]
    if types.is_map(kind):
        return _map_values(column, valid)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return [None if not ok else exact_values(column[place].values) for place, ok in enumerate(valid)]
    if types.is_fixed_size_list(kind):
        lengths = [kind.list_size if is_valid else 0 for is_valid in valid]
    else:
        lengths = [length or 0 for length in _lengths(column)]
    items = iter(exact_values(column.flatten()))
    taken = [[next(items) for _ in range(length)] for length in lengths]
    return [items if is_valid else None for items, is_valid in zip(taken, valid, strict=True)]


def _lengths(column: pa.Array) -> list[int | None]:
    import pyarrow.compute as pc

    lengths: list[int | None] = pc.list_value_length(column).to_pylist()
    return lengths


def _map_values(column: pa.MapArray, valid: list[bool]) -> list[Any]:
    offsets = column.offsets.to_pylist()
    first, last = offsets[0], offsets[-1]
    keys = exact_values(column.keys.slice(first, last - first))
    items = exact_values(column.items.slice(first, last - first))
    by_text = types.is_string(column.type.key_type) or types.is_large_string(column.type.key_type)
    found: list[Any] = []
    for place, is_valid in enumerate(valid):
        begin, end = offsets[place] - first, offsets[place + 1] - first
        pairs = list(zip(keys[begin:end], items[begin:end], strict=True))
        whole = by_text and len(dict(pairs)) == len(pairs)
        found.append(None if not is_valid else dict(pairs) if whole else [list(pair) for pair in pairs])
    return found


def _scalar_values(column: pa.Array) -> list[Any]:
    kind = column.type
    if types.is_float32(kind):  # its own shortest text, not the widened double's
        import polars as pl  # only here, since it takes 0.2 s

        texts = pl.Series(column).cast(pl.String).to_list()
        return [None if text is None else float(text) for text in texts]
    values = column.to_pylist()
    if types.is_decimal(kind):
        return [value if value is None or kind.scale >= 0 else Decimal(f"{value:f}") for value in values]
    if kind == pa.month_day_nano_interval():
        return [None if value is None else _interval(*value) for value in values]
    return [_in_json(value) for value in values]


def _in_json(value: Any) -> Any:
    """Returns a value of a type that JSON has; of a union, a value of one of its types."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return (
        value if value is None or isinstance(value, str | int | float | list | dict | Decimal) else str(value)
    )


def _interval(months: int, days: int, nanoseconds: int) -> str:
    return f"P{months}M{days}DT{Decimal(nanoseconds).scaleb(-9):f}S"


def _temporal_values(column: pa.Array) -> list[Any]:
    kind = column.type
    if kind == pa.month_day_nano_interval():
        return _scalar_values(column)
    ticks = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    if types.is_date32(kind):
        return [None if tick is None else _date(tick) for tick in ticks]
    if types.is_date64(kind):
        return [None if tick is None else _date(tick // (1000 * _DAY_SECONDS)) for tick in ticks]
    if types.is_duration(kind):
        places = _PLACES[kind.unit]
        return [None if tick is None else f"PT{Decimal(tick).scaleb(-places):f}S" for tick in ticks]
    if types.is_time(kind):
        return [None if tick is None else _clock(tick, kind.unit) for tick in ticks]
    return [None if tick is None else _instant(tick, kind) for tick in ticks]


def _instant(tick: int, kind: pa.TimestampType) -> str:
    per_second = 10 ** _PLACES[kind.unit]
    offset = 0 if kind.tz is None else _offset_seconds(tick // per_second, kind.tz)
    tick += (offset or 0) * per_second
    days, rest = divmod(tick, _DAY_SECONDS * per_second)
    zone = "" if kind.tz is None else "Z" if offset is None or kind.tz == "UTC" else _offset_text(offset)
    return f"{_date(days)}T{_clock(rest, kind.unit)}{zone}"


def _offset_seconds(second: int, zone: str) -> int | None:
    """Returns seconds east of UTC at an instant; None for an unknown zone, whose times are written in UTC."""
    from datetime import UTC, datetime, timedelta
    from zoneinfo import ZoneInfo

    sign = zone[:1]
    try:
        if sign in "+-":
            hours, _, minutes = zone[1:].partition(":")
            return (int(hours) * 60 + int(minutes or 0)) * (60 if sign == "+" else -60)
        instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        offset = instant.astimezone(ZoneInfo(zone)).utcoffset()
    except (ValueError, KeyError, OSError, OverflowError):
        return None
    return None if offset is None else int(offset.total_seconds())


def zone_is_unknown(kind: pa.DataType) -> bool:
    """Returns whether a type has times of a zone of unknown offset, such as a name of Windows."""
    if types.is_timestamp(kind):
        return kind.tz is not None and _offset_seconds(0, kind.tz) is None
    if types.is_dictionary(kind):
        return zone_is_unknown(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return zone_is_unknown(kind.storage_type)
    return any(zone_is_unknown(kind.field(place).type) for place in range(kind.num_fields))


def _offset_text(offset: int) -> str:
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{'-' if offset < 0 else '+'}{hours:02d}:{minutes:02d}"


def _clock(tick: int, unit: str) -> str:
    places = _PLACES[unit]
    second, fraction = divmod(tick, 10**places)
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"{clock}.{fraction:0{places}d}" if places else clock


def _date(day: int) -> str:
    """Returns ISO 8601 for a day since 1970, also in years beyond Python's dates.

    The proleptic Gregorian calendar repeats after 400 years.
    """
    from datetime import date

    cycles, day = divmod(day, _DAYS_OF_400_YEARS)
    near = date.fromordinal(date(1970, 1, 1).toordinal() + day)
    year = near.year + 400 * cycles
    text = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+07d}"
    return f"{text}-{near.month:02d}-{near.day:02d}"

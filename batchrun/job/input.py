"""The table `[input]` of a job file."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from batchrun.tables.endings import COMPRESSED_IN_WORDS

StoreAddress = Annotated[
    str | None,
    Meta(
        description="Address of the object store of an s3:// or gs:// URL, such as MinIO's or R2's: "
        "`https://ACCOUNT.r2.cloudflarestorage.com`. Left out: the provider's own."
    ),
]


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table with one request for each row."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="CSV, TSV, JSONL, Parquet or Arrow IPC file, plain or with "
            f"{COMPRESSED_IN_WORDS}; a zip archive with one of them; a workbook; a glob; an https or "
            "object-store URL; a database. Relative to the job file. See [inputs](#inputs).",
        ),
    ]
    types: Annotated[
        dict[str, Literal["string", "int", "float", "bool", "date"]],
        Meta(
            description="Types of CSV columns: column = type; templates then get typed values instead of the "
            "text in the file. Left out: an output column has a type only where that reproduces its text."
        ),
    ] = field(default_factory=dict)
    endpoint_url: StoreAddress = None
    skip_lines: Annotated[
        int,
        Meta(
            ge=0,
            description="Lines of a CSV file or a sheet to leave out before the header, such as a title.",
        ),
    ] = 0
    sheet: Annotated[
        str | None, Meta(description="The workbook's sheet, by its name. Left out: the first.")
    ] = None
    query: Annotated[
        str | None,
        Meta(description="The rows of a database: one `SELECT`. `path` then names the database."),
    ] = None
    hive: Annotated[
        bool,
        Meta(description="Whether folders named `key=value` in the files' paths become text columns."),
    ] = False

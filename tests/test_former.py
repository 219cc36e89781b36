"""Journals of the time when prompts were rendered from typed values: their rows are not sent again."""

import json
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.client.builder import RequestBuilder
from batchrun.client.request import Request
from batchrun.job.file import make_job
from batchrun.journal import Journal, create_or_open
from batchrun.journal.checksums import UNSEALED, sealed
from batchrun.journal.digest_index import insert_indexed
from batchrun.rows.dataset import Dataset, keeping_digests, open_dataset

PRICES = ("item,price,flag,stars", "a,3.10,True,4", "b,12e3,False,2", "c,5.5,True,5")
TEMPLATE = "{{ item }} {{ price }} {{ flag }}{% if stars > 3 %} good{% endif %}"


def opened(folder: Path, name: str, template: str, **tables: Any) -> Dataset:
    job = {
        "input": {"path": name},
        "prompt": {"template": template},
        "request": {"model": "m", "max_tokens": 5},
        "output": {"path": "out.parquet"},
        **tables,
    }
    return open_dataset(make_job(job, folder, sandbox=True), sandbox=True)


def digests(dataset: Dataset, journal: Journal | None = None) -> list[str]:
    """The digests of all rows with a request, which are the same with and without the digest cache."""
    dataset.digest_cache.path.parent.mkdir(exist_ok=True)
    found = [
        [digest.hex() for chunk in rows.chunks([], journal) for digest in chunk.digests if digest]
        for rows in (dataset, *[keeping_digests(dataset)] * 2)
    ]
    requests = [
        [request for chunk in rows.chunks([], journal) for request in chunk.requests]
        for rows in (dataset, keeping_digests(dataset))
    ]
    found += [[request.digest.hex() for request in part if isinstance(request, Request)] for part in requests]
    assert all(part == found[0] for part in found)
    return found[0]


def journal_of(folder: Path, paid: Sequence[str], job: str = '{"input": {"path": "in.csv"}}') -> Journal:
    """A journal whose only run has got an answer to each of these requests."""
    journal = create_or_open(folder / "journal.sqlite")
    run = journal.start_run("0.1.0", 1, True, "sandbox", "f", job)
    for attempt, digest in enumerate(paid, start=1):
        numbers = (attempt, run, bytes.fromhex(digest), 1, 1, 2, "answered", 0, 5, 0, 9)
        row = sealed((*numbers, *(None,) * (UNSEALED - len(numbers))), b"{}")
        insert_indexed(journal.connection, [row])
    return journal


CURRENT = '{"input": {"types": {}, "skip_lines": 0}, "retry": {"max_tokens": []}}'
BEFORE_NESTED_NULLS = '{"input": {"types": {}}, "retry": {"max_tokens": []}}'

# Digests that batchrun made of these rows at the time.
PRICES = ("item,price,flag,stars", "a,3.10,True,4", "b,12e3,False,2", "c,5.5,True,5")
TEMPLATE = "{{ item }} {{ price }} {{ flag }}{% if stars > 3 %} good{% endif %}"
PAID = [
    "f660d5908c402a9b29fbaaa1afe4e31c",
    "2d107d9791b457db52d7cc405a54f841",
    "45c4d839ac6603763d999d3bf1be31ba",
]
SAME, TWIN = "87ae42edde910ebf40d6e434ef2dd0e5", "765dbc294efadc0eb60f54afb31048ba"


def test_rows_of_a_former_journal_keep_their_requests(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n".join(PRICES))
    rows = opened(tmp_path, "in.csv", TEMPLATE)
    assert digests(rows)[:2] != PAID[:2]  # the text that stands in the file is another prompt
    with closing(journal_of(tmp_path, PAID)) as journal:
        assert digests(rows, journal) == PAID


def test_they_do_where_rows_have_come_that_change_the_types_of_columns(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n".join([*PRICES, "d,n/a,n/a,n/a"]))
    rows = opened(tmp_path, "in.csv", TEMPLATE)
    with closing(journal_of(tmp_path, PAID)) as journal:
        assert digests(rows, journal) == [*PAID, digests(rows)[3]]


def test_rows_that_a_former_journal_lacks_are_sent_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n".join(PRICES))
    rows = opened(tmp_path, "in.csv", TEMPLATE)
    with closing(journal_of(tmp_path, PAID[1:])) as journal:
        assert digests(rows, journal) == [digests(rows)[0], *PAID[1:]]


def test_a_journal_that_began_with_texts_is_not_searched_for_former_requests(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\n".join(PRICES))
    rows = opened(tmp_path, "in.csv", TEMPLATE)
    with closing(journal_of(tmp_path, PAID, CURRENT)) as journal:
        assert digests(rows, journal) == digests(rows)


@pytest.mark.parametrize(("duplicates", "paid"), [("share", [SAME, SAME]), ("separate", [SAME, TWIN])])
def test_rows_that_were_the_same_request_keep_the_answers_bought_for_them(
    tmp_path: Path, duplicates: str, paid: list[str]
) -> None:
    (tmp_path / "in.csv").write_text("price\n3.10\n3.1\n")
    output = {"path": "out.parquet", "duplicates": duplicates}
    rows = opened(tmp_path, "in.csv", "{{ price }}", output=output)
    with closing(journal_of(tmp_path, sorted(set(paid)))) as journal:
        assert digests(rows, journal) == paid


def test_parquet_and_jsonl_rows_keep_theirs(tmp_path: Path) -> None:
    table = {
        "d": [Decimal("1.10"), Decimal("2.00")],
        "f": pa.array([0.1, 2.5], pa.float32()),
        "b": [b"hi", b"yo"],
        "n": ["x", None],
    }
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text('{"m":{"a":1.50}}\n{"m":{"b":"x"}}\n')
    parquet = ["d2fb3f1829fece416a8594c947411640", "a34be2553149f0ceb5972de660e8db21"]
    jsonl = ["1d74e6b0ad3fc599d9155755eb7cf562", "61788a0642bab0f7f318db5669fce784"]
    with closing(journal_of(tmp_path, [*parquet, *jsonl])) as journal:
        rows = opened(tmp_path, "in.parquet", "{{ d }} {{ f }} {{ b }} {{ n | trim }}")
        assert digests(rows, journal) == parquet
        assert digests(opened(tmp_path, "in.jsonl", "{{ m }}"), journal) == jsonl


def test_rows_whose_nested_nulls_were_sent_as_none_keep_their_requests(tmp_path: Path) -> None:
    rows = [{"m": {"a": "x", "b": None}, "tags": ["p", None]}, {"m": {"a": "y", "b": "z"}, "tags": ["q"]}]
    (tmp_path / "in.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(rows))
    dataset = opened(tmp_path, "in.jsonl", "{{ m.b | trim }} {{ m.a ~ m.b }} {{ tags | join(',') }}")
    paid = ["88a40d78ae6c1d3499e9c57c2e137312", "a82beb6fe68d343ee46d3753c2a89988"]
    now = digests(dataset)
    assert (now[0] != paid[0], now[1]) == (True, paid[1])
    with closing(journal_of(tmp_path, paid, BEFORE_NESTED_NULLS)) as journal:
        assert digests(dataset, journal) == paid
        journal.start_run("0.1.0", 2, True, "sandbox", "f", CURRENT)
        assert digests(dataset, journal) == paid


BEFORE_CAPS = '{"input": {"types": {}}, "request": {"max_tokens": 5}}'


def test_a_row_keeps_the_request_whose_identity_had_its_max_tokens(tmp_path: Path) -> None:
    """Also where max_tokens was raised since: what was bought is found."""
    (tmp_path / "in.csv").write_text("price\n3.10\n3.20\n")
    rows = opened(tmp_path, "in.csv", "{{ price }}")
    paid = [former_digest(text) for text in ("3.10", "3.20")]
    with closing(journal_of(tmp_path, paid, BEFORE_CAPS)) as journal:
        assert digests(rows, journal) == paid
        raised = opened(tmp_path, "in.csv", "{{ price }}", request={"model": "m", "max_tokens": 64})
        assert digests(raised, journal) == paid
        (chunk,) = raised.chunks([], journal)
        assert {request.output_bound for request in chunk.requests if isinstance(request, Request)} == {64}


@pytest.mark.parametrize("duplicates", ["share", "separate"])
def test_of_a_row_that_was_sent_under_two_max_tokens_the_higher_one_counts(
    tmp_path: Path, duplicates: str
) -> None:
    """The lower one was cut, as likely as not, and would be sent again."""
    (tmp_path / "in.csv").write_text("price\n3.10\n3.20\n")
    output = {"path": "out.parquet", "duplicates": duplicates}
    request = {"model": "m", "max_tokens": 32}
    rows = opened(tmp_path, "in.csv", "{{ price }}", request=request, output=output)
    higher = [former_digest(text, 64) for text in ("3.10", "3.20")]
    with closing(journal_of(tmp_path, [former_digest("3.10"), *higher], BEFORE_CAPS)) as journal:
        journal.start_run("0.1.0", 1, True, "sandbox", "f", BEFORE_CAPS.replace("5", "64"))
        assert digests(rows, journal) == higher


def former_digest(text: str, cap: int = 5) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": cap}
    encoded = json.dumps(body, separators=(",", ":")).encode()
    return blake2b(b"sandbox\n" + encoded, digest_size=16).hexdigest()


def test_former_requests_are_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the journal has is looked up each time: a new answer decides between the same requests."""
    (tmp_path / "in.csv").write_text("\n".join(PRICES))
    rows = opened(tmp_path, "in.csv", TEMPLATE)
    now = digests(rows)
    rendered: list[Any] = []
    plain = RequestBuilder.build

    def build(self: RequestBuilder, row: Any) -> Any:
        rendered.append(row)
        return plain(self, row)

    monkeypatch.setattr(RequestBuilder, "build", build)

    def found(journal: Journal) -> list[str]:
        chunks = keeping_digests(rows).chunks([], journal)
        return [digest.hex() for chunk in chunks for digest in chunk.digests if digest]

    with closing(journal_of(tmp_path, PAID[:2])) as journal:
        assert found(journal) == [*PAID[:2], now[2]]
        rendered.clear()
        assert found(journal) == [*PAID[:2], now[2]]
        numbers = (3, 1, bytes.fromhex(now[0]), 1, 1, 2, "answered", 0, 5, 0, 9)
        row = sealed((*numbers, *(None,) * (UNSEALED - len(numbers))), b"{}")
        insert_indexed(journal.connection, [row])
        assert found(journal) == [now[0], PAID[1], now[2]]
        assert rendered == []

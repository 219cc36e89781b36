"""What the samples promise: real-looking quirks, right labels, and a sandbox that labels them plausibly."""

import csv
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minijinja
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from batchrun.job.file import load_job
from batchrun.job.spec import Job, asks_in_random_order
from batchrun.sandbox.replies import load_replies
from batchrun.sandbox.tokens import TOKENS_PER_MESSAGE, TOKENS_PER_REQUEST, count_tokens

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_data"
REPLY_FILE = SAMPLES / "replies.toml"
TASKS = ("sentiment", "tickets", "questions")
LABELS = {
    "reviews.csv": {"positive", "negative", "neutral"},
    "tickets.csv": {"billing", "bug", "account", "shipping", "other"},
}
REPEATED_IDS = {"reviews.csv": {"012", "087", "149"}, "tickets.csv": {"00019", "00132"}}

Row = dict[str, Any]


def csv_rows(name: str) -> list[Row]:
    """The rows of a sample with null (an empty cell) told from "" (a quoted empty text)."""
    text_columns = ("id", "text", "language", "subject", "body", "channel", "created_at", "gold")
    table = pyarrow.csv.read_csv(
        SAMPLES / name,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(text_columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    rows: list[Row] = table.to_pylist()
    return rows


def question_rows() -> list[Row]:
    rows: list[Row] = pyarrow.parquet.read_table(SAMPLES / "questions.parquet").to_pylist()
    return rows


def job_of(task: str) -> Job:
    return load_job(ROOT / "jobs" / f"{task}.toml")


def rows_of(task: str) -> list[Row]:
    return question_rows() if task == "questions" else csv_rows(Path(job_of(task).input.path).name)


def prompts(task: str) -> list[str]:
    """The user message of each row, from the job's own template."""
    template = job_of(task).prompt.template
    assert template is not None
    environment = minijinja.Environment(undefined_behavior="strict")
    return [environment.render_str(template, **row) for row in rows_of(task)]


def system_of(task: str) -> str:
    system = job_of(task).prompt.system
    assert isinstance(system, str)
    return system


def reply_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = tomllib.loads(REPLY_FILE.read_text(encoding="utf-8"))["reply"]
    return rules


def winning_rules(task: str) -> list[int]:
    """For each row, the index of the first entry of the reply file that applies to its prompt."""
    system = system_of(task)
    rules = [
        (index, re.compile(rule["pattern"]))
        for index, rule in enumerate(reply_rules())
        if re.search(rule.get("system", ""), system)
    ]
    return [next(index for index, pattern in rules if pattern.search(prompt)) for prompt in prompts(task)]


def likeliest(rule: dict[str, Any]) -> str:
    choices = rule.get("choices") or [{"text": rule["text"], "probability": 1.0}]
    text: str = max(choices, key=lambda choice: choice["probability"])["text"]
    return text


def agreement(task: str) -> float:
    """The share of rows whose likeliest reply is the expected one, to the character."""
    expected = "answer" if task == "questions" else "gold"
    rules = reply_rules()
    pairs = zip(rows_of(task), winning_rules(task), strict=True)
    hits = [bool(likeliest(rules[index]) == row[expected]) for row, index in pairs]
    return sum(hits) / len(hits)


@pytest.mark.parametrize(("name", "least"), [("reviews.csv", 300), ("tickets.csv", 240)])
def test_csv_samples_are_well_formed(name: str, least: int) -> None:
    """A strict reader finds equally many fields in each record, and about as many rows as promised."""
    with (SAMPLES / name).open(encoding="utf-8", newline="") as file:
        header, *records = csv.reader(file, strict=True)
    assert {len(record) for record in records} == {len(header)}
    assert least <= len(records) <= least + 20


@pytest.mark.parametrize("name", LABELS)
def test_gold_labels_are_of_the_set_and_none_is_rare(name: str) -> None:
    """Each row has a label of the set, and each label has at least a tenth of the rows."""
    counts = Counter(row["gold"] for row in csv_rows(name))
    assert set(counts) == LABELS[name]
    assert min(counts.values()) >= counts.total() / 10


@pytest.mark.parametrize("name", LABELS)
def test_ids_repeat_only_where_the_whole_row_does(name: str) -> None:
    """The ids are unique but for the few rows that an export repeated, equal in every column."""
    rows = csv_rows(name)
    repeated = {id_ for id_, count in Counter(row["id"] for row in rows).items() if count > 1}
    assert repeated == REPEATED_IDS[name]
    for id_ in repeated:
        first, *others = [row for row in rows if row["id"] == id_]
        assert all(other == first for other in others)


@pytest.mark.parametrize("task", TASKS)
def test_some_requests_are_duplicates(task: str) -> None:
    """Every job has a few rows with the same prompt, so that sharing an answer can be seen."""
    rendered = prompts(task)
    assert 2 <= len(rendered) - len(set(rendered)) <= 10


QUIRKS: dict[str, Callable[[str], bool]] = {
    "line break": lambda cell: "\n" in cell,
    "CRLF": lambda cell: "\r\n" in cell,
    "tab": lambda cell: "\t" in cell,
    "comma": lambda cell: "," in cell,
    "quote": lambda cell: '"' in cell,
    "Jinja braces": lambda cell: "{{" in cell and "}}" in cell,
    "HTML": lambda cell: re.search(r"<(\w+)>.*</\1>", cell, re.DOTALL) is not None,
    "emoji": lambda cell: any(ord(character) > 0x1F300 for character in cell),
    "Japanese": lambda cell: re.search(r"[\u3040-\u30ff]", cell) is not None,
    "Arabic": lambda cell: re.search(r"[\u0600-\u06ff]", cell) is not None,
    "German": lambda cell: re.search(r"[äöüß]", cell) is not None,
    "Turkish": lambda cell: re.search(r"[ışğ]", cell) is not None,
    "very short": lambda cell: 0 < len(cell) < 6,
    "long": lambda cell: len(cell) > 300,
}


@pytest.mark.parametrize("quirk", QUIRKS)
@pytest.mark.parametrize("sample", ["reviews.csv", "tickets.csv", "questions.parquet"])
def test_quirks_of_real_files_are_present(sample: str, quirk: str) -> None:
    """Each sample has a text with each quirk that a table of prompts meets in the wild."""
    rows = question_rows() if sample == "questions.parquet" else csv_rows(sample)
    cells = [cell for row in rows for cell in row.values() if isinstance(cell, str)]
    assert any(map(QUIRKS[quirk], cells))


@pytest.mark.parametrize(
    ("name", "column"), [("reviews.csv", "language"), ("tickets.csv", "body"), ("tickets.csv", "subject")]
)
def test_null_cells_stand_beside_empty_texts(name: str, column: str) -> None:
    """A column has both an empty cell and a quoted empty text, which are different values."""
    values = [row[column] for row in csv_rows(name)]
    assert None in values
    assert "" in values


def test_ids_have_leading_zeros_and_ratings_may_be_missing() -> None:
    """ "007" is a text, not the number 7; a rating is a whole number from 1 to 5, or null."""
    rows = csv_rows("reviews.csv")
    assert "007" in {row["id"] for row in rows}
    assert {row["rating"] for row in rows} == {1, 2, 3, 4, 5, None}


def test_reviews_come_in_many_languages() -> None:
    """At least ten languages are named, and English is the most frequent one."""
    languages = Counter(row["language"] for row in csv_rows("reviews.csv") if row["language"])
    assert len(languages) >= 10
    assert languages.most_common(1)[0][0] == "en"


def test_tickets_are_in_order_of_time() -> None:
    """created_at is an ISO 8601 instant in UTC or null, and never goes back as the ids go up."""
    unique = {row["id"]: row["created_at"] for row in csv_rows("tickets.csv")}
    times = [unique[id_] for id_ in sorted(unique)]
    known = [time for time in times if time is not None]
    assert len(known) < len(times)
    assert known == sorted(known)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in known)


def test_questions_are_sorted_by_topic_and_typed() -> None:
    """The Parquet sample has 300 rows or so, a small integer and a dictionary column, nulls last."""
    table = pyarrow.parquet.read_table(SAMPLES / "questions.parquet")
    assert 290 <= table.num_rows <= 310
    assert table.schema.names == ["id", "question", "answer", "topic", "difficulty"]
    assert table.schema.field("difficulty").type == pa.int8()
    assert pa.types.is_dictionary(table.schema.field("topic").type)
    topics = table["topic"].to_pylist()
    assert topics == sorted(topics, key=lambda topic: (topic is None, topic or ""))
    assert None in topics
    assert "" in topics


def test_questions_have_an_answer_each_and_unique_ids() -> None:
    """No answer is missing; a third or more are numbers, and as many are words."""
    rows = question_rows()
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["answer"] for row in rows)
    numbers = sum(re.fullmatch(r"-?\d+(\.\d+)?", row["answer"]) is not None for row in rows)
    assert len(rows) / 3 <= numbers <= len(rows) * 2 / 3


def test_the_same_question_has_the_same_answer() -> None:
    """Where a question is repeated, so is its gold answer."""
    answers = {row["question"]: row["answer"] for row in question_rows()}
    assert all(answers[row["question"]] == row["answer"] for row in question_rows())


@pytest.mark.parametrize("task", TASKS)
def test_jobs_load_and_write_to_the_ignored_folder(task: str) -> None:
    """The example jobs are valid; their outputs stay out of version control."""
    job = job_of(task)
    assert job.request.model == "abliterated-model"
    assert job.output.path == f"../output/{task}.parquet"
    assert "/output/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_braces_in_a_cell_are_not_run() -> None:
    """A cell that looks like a template reaches the prompt as it is."""
    assert any("{{ customer.first_name }}" in prompt for prompt in prompts("sentiment"))


def test_ticket_template_leaves_out_empty_cells() -> None:
    """Neither "none" nor a dangling "Subject:" is sent for a null or empty cell."""
    rendered = prompts("tickets")
    for row, prompt in zip(csv_rows("tickets.csv"), rendered, strict=True):
        assert ("Subject:" in prompt.partition("\n\n")[0]) == bool(row["subject"])
        assert prompt.endswith(row["body"] or "(no text)")
    assert "Channel: unknown\n" in "".join(rendered)
    assert "none" not in {prompt.partition("\n\n")[2].lower() for prompt in rendered}


def sandbox_cost(task: str) -> float:
    """USD that the whole task costs at the sandbox, equal requests asked once."""
    system = count_tokens(system_of(task))
    framing = TOKENS_PER_REQUEST + 2 * TOKENS_PER_MESSAGE
    rules = reply_rules()
    replies = dict(zip(prompts(task), winning_rules(task), strict=True))
    tokens = [
        framing + system + count_tokens(prompt) + count_tokens(likeliest(rules[index]))
        for prompt, index in replies.items()
    ]
    return sum(tokens) * 5e-6


@pytest.mark.parametrize("task", ["sentiment", "tickets"])
def test_budget_buys_the_whole_task(task: str) -> None:
    """The caps leave twice what the task costs at the sandbox, room enough for the worst case in flight."""
    budget = job_of(task).budget
    caps = [cap for cap in (budget.usd, budget.usd_per_run, budget.usd_per_day) if cap is not None]
    assert float(min(caps)) >= 2 * sandbox_cost(task)


def test_budget_buys_a_part_of_the_questions() -> None:
    """The cap is between a quarter and three quarters of the cost, and the part is a random one."""
    job = job_of("questions")
    assert asks_in_random_order(job)
    assert job.budget.usd is not None
    assert 0.25 <= float(job.budget.usd) / sandbox_cost("questions") <= 0.75


def test_reply_file_is_one_that_the_sandbox_takes() -> None:
    """The sandbox loads every entry: patterns compile, probabilities sum to 1."""
    assert len(load_replies(REPLY_FILE)) == len(reply_rules())


def test_every_reply_is_in_use() -> None:
    """No entry is dead: each is the first one to apply to a row of its task."""
    used = {index for task in TASKS for index in winning_rules(task)}
    assert used == set(range(len(reply_rules())))


def test_each_task_ends_with_a_catch_all() -> None:
    """Whatever is asked under one of the three system prompts gets an answer of that task."""
    rules = reply_rules()
    for task in TASKS:
        system = system_of(task)
        own = [rule for rule in rules if "system" in rule and re.search(rule["system"], system)]
        assert own[-1]["pattern"] == "."


@pytest.mark.parametrize("task", ["sentiment", "tickets"])
def test_labels_come_from_word_lists(task: str) -> None:
    """A handful of entries serve all rows, ten or more each: none was written for a single row."""
    uses = Counter(winning_rules(task))
    assert len(uses) <= 5
    assert min(uses.values()) >= 10


@pytest.mark.parametrize(
    ("task", "low", "high"), [("sentiment", 0.75, 0.95), ("tickets", 0.75, 0.95), ("questions", 0.6, 0.8)]
)
def test_replies_agree_with_gold_as_a_fair_labeller_would(task: str, low: float, high: float) -> None:
    """The likeliest replies are mostly right, and leave something to measure."""
    assert low <= agreement(task) <= high

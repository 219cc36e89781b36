"""What a worker checks before it connects: its token file, and where the coordinator is."""

from pathlib import Path

import pytest

from batchrun.errors import UsageError
from batchrun.workers.access import new_token, read_token_file
from batchrun.workers.worker import serve


@pytest.mark.parametrize("text", ["", "model = 'm'\n", "a" * 44, f"{'a' * 43}.{'g' * 64}"])
def test_a_file_that_holds_no_token_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"b\.toml holds no token"):
        read_token_file(path)


@pytest.mark.parametrize("fingerprint", [None, "0f" * 32])
def test_a_token_file_of_a_run_is_read(tmp_path: Path, fingerprint: str | None) -> None:
    token = new_token(fingerprint)
    path = tmp_path / "workers.token"
    path.write_text(f"{token.text()}\n")
    assert read_token_file(path) == token


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_without_tls_a_public_address_is_refused_before_connecting() -> None:
    with pytest.raises(UsageError, match=r"8\.8\.8\.8 is not in a private network"):
        await serve(("8.8.8.8", 77), new_token())

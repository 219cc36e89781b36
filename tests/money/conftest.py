"""What the tests of the money share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"

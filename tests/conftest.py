"""What holds for all tests."""

import pytest
from hypothesis import strategies as st


@pytest.fixture(scope="session", autouse=True)
def _table_of_characters() -> None:
    """In a fresh clone Hypothesis makes one, for seconds that no test is to be blamed for."""
    st.text().validate()

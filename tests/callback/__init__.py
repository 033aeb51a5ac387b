"""The handler under the real LangChain, LangGraph and OpenAI clients, against a sandbox."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.arthur")

"""A FastAPI service that streams answers, logs them to Arthur, and shows how delivery goes.

For web services. Run it against a local Arthur, without any key:

    pip install 'arthur-relay[daemon]' fastapi
    arthur-relay sandbox     # in another terminal; export here the lines that it prints
    uvicorn service:app

    curl -i localhost:8000/chat -H 'Content-Type: application/json' \
      -d '{"text": "How is the weather?", "user_id": "u1"}'
    curl -X POST 'localhost:8000/feedback/ID?liked=true'   # ID is the answer's header X-Run-Id
    curl localhost:8000/health
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel

import arthur_relay

handler = arthur_relay.ArthurCallbackHandler.from_env()
model = FakeListChatModel(responses=["It is sunny."])  # needs no key; put your own in its place
app = FastAPI(lifespan=arthur_relay.lifespan(handler))  # delivers what waits when the server stops


class Question(BaseModel):
    """What a user asks."""

    text: str
    user_id: str


@app.post("/chat")
async def chat(question: Question) -> StreamingResponse:
    """Stream an answer. Its id in Arthur is in the header `X-Run-Id`."""
    run_id = uuid4()
    config = RunnableConfig(
        callbacks=[handler], run_id=run_id, metadata={"user_id": question.user_id}
    )

    async def answer() -> AsyncIterator[str]:
        async for chunk in model.astream(question.text, config):
            yield str(chunk.content)

    return StreamingResponse(answer(), media_type="text/plain", headers={"X-Run-Id": str(run_id)})


@app.post("/feedback/{run_id}", status_code=204)
async def feedback(run_id: UUID, *, liked: bool) -> None:
    """Tell Arthur what the user said of an answer, whenever that comes."""
    handler.log_ground_truth(run_id, {"thumbs_up": liked})


@app.get("/health")
async def health() -> dict[str, Any]:
    """Say how delivery goes. Always 200: the service goes on while Arthur is away."""
    relay = handler.relay
    return {"arthur": relay.health().as_dict(), "counts": relay.stats().as_dict()}

"""Celery tasks that call a model and log it to Arthur.

For task queues. Run them against a local Arthur, without any key and without a broker's server:

    pip install 'arthur-relay[daemon]' celery
    arthur-relay sandbox          # in another terminal; export in the others the lines it prints
    celery --app tasks worker     # here, in this directory
    python -c "import tasks; tasks.answer.delay('How is the weather?')"    # in a third terminal
"""

from celery import Celery
from langchain_core.language_models import FakeListChatModel

from arthur_relay import ArthurCallbackHandler

app = Celery("tasks")
app.config_from_object("celeryconfig")

handler = ArthurCallbackHandler.from_env()  # each process of the pool gets a relay of its own
model = FakeListChatModel(responses=["It is sunny."])  # needs no key; put your own in its place


@app.task
def answer(question: str) -> str:
    """Ask the model. What waits is delivered when the pool's process ends."""
    return str(model.invoke(question, {"callbacks": [handler]}).content)

"""What OpenInference's variables `OPENINFERENCE_HIDE_*` keep out of spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

from arthur_relay.encoding.images import MAX_IMAGE_CHARACTERS, max_image_characters

if TYPE_CHECKING:
    from arthur_relay.encoding.privacy import Privacy

REDACTED = "__REDACTED__"
"""OpenInference's stand-in for a value that is hidden."""

PREFIX = "OPENINFERENCE_HIDE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hiding:
    """What is hidden; `OPENINFERENCE_HIDE_` and a field's name in capitals is its variable.

    Attributes:
        inputs: Inputs, input messages, prompts, tools.
        outputs: Outputs, output messages, documents.
        input_messages: Messages to the model.
        output_messages: Messages of the model.
        input_text: The texts of messages to the model.
        output_text: The texts of messages of the model.
        input_images: Images in messages to the model.
        prompts: Prompts of completion models.
        llm_invocation_parameters: The settings of model calls.
        llm_tools: The tools that a model may call.
        retrieval_documents: The texts and the metadata of documents.
        base64_image_max_length: How many characters an inline image may have; longer ones are
            hidden. Its variable has no `HIDE`.
    """

    inputs: bool = False
    outputs: bool = False
    input_messages: bool = False
    output_messages: bool = False
    input_text: bool = False
    output_text: bool = False
    input_images: bool = False
    prompts: bool = False
    llm_invocation_parameters: bool = False
    llm_tools: bool = False
    retrieval_documents: bool = False
    base64_image_max_length: int = MAX_IMAGE_CHARACTERS

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return what the environment's variables ask for, as OpenInference reads them."""
        asked = {
            each.name: environment.get(PREFIX + each.name.upper(), "").lower() == "true"
            for each in fields(cls)
            if each.name != "base64_image_max_length"
        }
        return cls(**asked, base64_image_max_length=max_image_characters(environment))

    def under(self, privacy: Privacy | None) -> Self:
        """Return this with what the relay's own settings hide, and with what follows from it."""
        inputs = self.inputs or (privacy is not None and privacy.hides_inputs)
        outputs = self.outputs or (privacy is not None and privacy.hides_outputs)
        return replace(
            self,
            inputs=inputs,
            outputs=outputs,
            input_messages=inputs or self.input_messages,
            output_messages=outputs or self.output_messages,
            input_images=inputs or self.input_images,
            prompts=inputs or self.prompts,
            llm_tools=inputs or self.llm_tools,
            retrieval_documents=outputs or self.retrieval_documents,
        )

"""The names that LangChain's provider packages have for the facts of an answer.

They are from the sources of langchain-core 0.3 to 1.8 and of the provider packages (which
`docs/providers.md` lists). The callback keeps only facts with these names, because others can be
large or secret: HTTP headers, whole bodies, search results. The worker reads them.
"""

from __future__ import annotations

FINISH_REASON = (
    "finish_reason",  # OpenAI and its compatible providers, Gemini, Cohere, Mistral
    "stop_reason",  # Anthropic, Bedrock's InvokeModel
    "stopReason",  # Bedrock's Converse
    "done_reason",  # Ollama
    "finishReason",
    "completionReason",  # Bedrock: Amazon's models
    "completion_reason",
    "stop_type",
)
"""Each has the reason itself. They are read in this order."""

FINISH_DETAILS = ("status", "incomplete_details", "prompt_feedback")
"""Facts that contain the reason when no name of `FINISH_REASON` has it."""

MODEL_NAME = ("model_name", "model", "model_id", "modelId", "model_version", "modelVersion")

RESPONSE_ID = ("response_id", "id", "request_id", "x_request_id")

TOKEN_COUNTS = (
    "token_usage",
    "usage",
    "usage_metadata",
    "token_count",
    "tokenUsage",
    "amazon-bedrock-invocationMetrics",
)
"""Each has a dict of counts."""

LOOSE_TOKEN_COUNTS = (
    "prompt_eval_count",
    "eval_count",
    "prompt_tokens",
    "completion_tokens",
    "prompt_token_count",
    "generation_token_count",
    "input_tokens",
    "generated_tokens",
    "output_tokens",
    "total_tokens",
)
"""Counts among the other facts, outside of any dict of counts."""

COST = ("cost", "response_cost", "total_cost")

SERVICE_TIER = ("service_tier", "serviceTier")

OTHERS = ("finish_message", "model_provider", "provider", "stop_details", "system_fingerprint")

LOG_PROBABILITIES = ("logprobs", "logprobs_result", "logprobsResult", "log_probs", "details")

REASONING = ("reasoning_content", "reasoning", "thinking_blocks", "thinking", "reasoning_details")
"""In `additional_kwargs`. Private, so they are kept only if the model has registered them."""

ANSWERS = ("refusal", "audio", "function_call", "tool_calls", "executed_tools", "tool_outputs")
"""Answers other than texts, in `additional_kwargs`."""

KEPT = frozenset(
    (
        *FINISH_REASON,
        *FINISH_DETAILS,
        *MODEL_NAME,
        *RESPONSE_ID,
        *TOKEN_COUNTS,
        *LOOSE_TOKEN_COUNTS,
        *COST,
        *SERVICE_TIER,
        *OTHERS,
        *LOG_PROBABILITIES,
    )
)
"""The names to keep of `response_metadata`, `generation_info` and `llm_output`."""

KEPT_OF_EXTRAS = KEPT | frozenset(ANSWERS)
"""The names to keep of `additional_kwargs`."""

REQUEST_SETTINGS = {
    "temperature": ("temperature", "ls_temperature"),
    "max_tokens": (
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens_to_sample",
        "max_new_tokens",
        "num_predict",
        "maxTokens",
        "maxOutputTokens",
        "maxTokenCount",
        "ls_max_tokens",
    ),
    "top_p": ("top_p", "topP", "p"),
    "seed": ("seed", "random_seed"),
    "stop": ("stop", "stop_sequences", "stopSequences", "ls_stop"),
}
"""The names of each setting of the request, by attribute name: in `invocation_params`, in nested
settings of it, and in LangChain's own metadata."""

NESTED_SETTINGS = (
    "options",
    "generation_config",
    "generationConfig",
    "inferenceConfig",
    "model_kwargs",
    "textGenerationConfig",
)
"""Members of `invocation_params` that have settings one level deeper."""

"""What LangChain's provider packages call the facts of an answer, beside its text.

Read in the sources of langchain-core 0.3 to 1.8 and of the provider packages (their names are in
`docs/providers.md`). The callback keeps these names and no others, because what else stands beside
them can be large or secret: HTTP headers, whole bodies, search results. The worker reads them.
"""

from __future__ import annotations

FINISH_REASON = (
    "finish_reason",  # OpenAI and all who speak like it, Gemini, Cohere, Mistral
    "stop_reason",  # Anthropic, Bedrock's InvokeModel
    "stopReason",  # Bedrock's Converse
    "done_reason",  # Ollama
    "finishReason",
    "completionReason",  # Bedrock: Amazon's models
    "completion_reason",
    "stop_type",
)
"""Each holds the reason itself. In this order."""

FINISH_DETAILS = ("status", "incomplete_details", "prompt_feedback")
"""Where the reason is found when no name of `FINISH_REASON` has it."""

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
"""Each holds a dict of counts."""

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
"""Counts that stand beside the other facts, and in no dict of their own."""

COST = ("cost", "response_cost", "total_cost")

SERVICE_TIER = ("service_tier", "serviceTier")

OTHERS = ("finish_message", "model_provider", "provider", "stop_details", "system_fingerprint")

LOG_PROBABILITIES = ("logprobs", "logprobs_result", "logprobsResult", "log_probs", "details")

REASONING = ("reasoning_content", "reasoning", "thinking_blocks", "thinking", "reasoning_details")
"""In `additional_kwargs`. Private, so they are kept only for a model that has registered them."""

ANSWERS = ("refusal", "audio", "function_call", "tool_calls", "executed_tools", "tool_outputs")
"""What an answer that is no text is in `additional_kwargs`."""

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
"""Of `response_metadata`, `generation_info` and `llm_output`."""

KEPT_OF_EXTRAS = KEPT | frozenset(ANSWERS)
"""Of `additional_kwargs`."""

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
"""By attribute name: what `invocation_params`, its nested settings and LangChain's own metadata
call a setting of the request."""

NESTED_SETTINGS = (
    "options",
    "generation_config",
    "generationConfig",
    "inferenceConfig",
    "model_kwargs",
    "textGenerationConfig",
)
"""What of `invocation_params` holds settings one level deeper."""

"""What an `arthurai.ArthurModel` knows: its schema, Arthur's address and the credentials in use."""

from __future__ import annotations

import base64
from typing import Any

from arthur_relay.credentials import Credentials, check_url
from arthur_relay.destinations.scope.schema import Attribute, ModelSchema
from arthur_relay.errors import ConfigurationError

_ADVICE = "use ArthurCallbackHandler.from_credentials(...) instead."


def schema_of(arthur_model: Any) -> ModelSchema:
    """Return the schema of a saved `arthurai.ArthurModel`; Arthur is not asked.

    Raises:
        ConfigurationError: It is not a saved ArthurModel.
        ModelError: It is not an LLM.
    """
    model_id = getattr(arthur_model, "id", None)
    if not isinstance(model_id, str) or not hasattr(arthur_model, "get_attributes"):
        raise ConfigurationError(
            f"{type(arthur_model).__name__} is not an arthurai.ArthurModel that is saved: get one"
            " by ArthurAI(...).get_model(id), or " + _ADVICE
        )
    return ModelSchema(
        model_id,
        [
            Attribute(a.name, str(a.value_type), str(a.stage), a.position or 0)
            for a in arthur_model.get_attributes()
        ],
    )


def credentials_of(arthur_model: Any, *, allow_insecure: bool) -> Credentials:
    """Return the address and credentials of the client that a model came from.

    The client is private to the SDK, whose last release was in February 2025: its shape will not
    change any more. A login's password is kept by the SDK to refresh its token, and so do we.

    Raises:
        ConfigurationError: The model has no client, or its URL can't be used.
    """
    client: Any = getattr(arthur_model, "_client", None)
    try:
        headers = client.session.headers
        url = check_url(client.base_url, allow_insecure=allow_insecure)
        organization = headers.get("Arthur-Organization-ID") or None
        verify = client.session.verify is not False
        refresher = getattr(getattr(client, "_header_refresh_func", None), "__self__", None)
        if refresher is None:
            return Credentials(
                url,
                api_key=headers["Authorization"],
                organization_id=organization,
                verify_ssl=verify,
            )
        return Credentials(
            url,
            login=refresher._login,  # noqa: SLF001 - see the docstring
            password=base64.b64decode(refresher._password_encoded).decode(),  # noqa: SLF001 - as above
            organization_id=organization,
            verify_ssl=verify,
        )
    except (AttributeError, KeyError) as error:
        raise ConfigurationError(
            "The ArthurModel has no client that could be used: get it by"
            " ArthurAI(...).get_model(id), or " + _ADVICE
        ) from error

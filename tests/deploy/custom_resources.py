"""Says what is wrong with resources of the Prometheus operator; run by the tools' own Python.

Reads a JSON array of manifests from standard input, and prints one line for each that the
operator's schema does not take as it is.
"""

import json
import sys
from collections.abc import Iterator

from cloudcoil.models.prometheus_operator import v1  # type: ignore[import-not-found] # see tools.txt


def complaints() -> Iterator[str]:
    for manifest in json.load(sys.stdin):
        model = getattr(v1, manifest["kind"]).model_validate(manifest)
        # The model leaves out what it does not know.
        if model.model_dump(by_alias=True, exclude_unset=True, mode="json") != manifest:
            yield f"{manifest['kind']} {manifest['metadata']['name']} has unknown fields\n"


if __name__ == "__main__":
    sys.stdout.writelines(complaints())

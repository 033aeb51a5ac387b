"""A broker that is a directory, so that the example needs no server; put your own in its place."""

import os
import tempfile
from pathlib import Path

broker_url = os.environ.get("CELERY_BROKER_URL", "filesystem://")
if broker_url == "filesystem://":
    directory = Path(tempfile.gettempdir()) / "arthur-relay-celery"
    directory.mkdir(exist_ok=True)
    broker_transport_options = {
        "data_folder_in": str(directory),
        "data_folder_out": str(directory),
        "control_folder": str(directory),
    }

"""One relay a host, that speaks Arthur's own API: its intake, who may use it, and how it runs."""

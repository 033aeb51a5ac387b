"""One module for each wire format: an `Answer` as that provider's server would send it."""

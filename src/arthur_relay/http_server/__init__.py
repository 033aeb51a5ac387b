"""What the daemon's and the sandbox's HTTP servers share."""

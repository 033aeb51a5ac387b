"""`arthur-relay demo`: a conversation that streams on while Arthur goes away and comes back."""

"""The one loop that all rows pass, and what it is composed of."""

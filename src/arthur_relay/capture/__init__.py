"""Takes in what LangChain tells, on the caller's thread."""

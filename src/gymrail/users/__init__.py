"""Users who talk to the agent: scripted ones, and ones that a language model plays."""

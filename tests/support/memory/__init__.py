"""A broker and a store in memory that pass the contract suites of the real ones and can be cut at every call."""

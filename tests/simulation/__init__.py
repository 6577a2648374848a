"""The worker's whole path on a broker and a store in memory, cut at every call that it makes to them."""
